#!/bin/bash
# Builds the fuzz targets with clang and runs each for FUZZ_SECONDS (default 30), from the corpus in the tree.
# New inputs go to build/fuzz; a crash is left there, named crash-*, and the script fails.
set -eu
cd "$(dirname "$0")/../../.."
CLANG=${CLANG:-$(command -v clang-14 || command -v clang || true)}
test -n "$CLANG" || { echo "clang with libFuzzer is missing: apt-get install clang-14 libclang-rt-14-dev" >&2; exit 1; }
BUILD=build/fuzz
SECONDS_EACH=${FUZZ_SECONDS:-30}
PYTHON=${PYTHON:-python3}
mkdir -p "$BUILD"

prefix=$("$PYTHON" deploy/setup/boringssl.py)
flags=(-g -O1 -std=gnu11 -D_GNU_SOURCE -I. "-I$prefix/include" -Wall -fno-omit-frame-pointer
       -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined)

# The kernels are not what is fuzzed: they come from the ordinary build.
kernels=build/native/kernels/libkernels.a
test -f "$kernels" || { echo "$kernels is missing: make build" >&2; exit 1; }

echo "== building the fuzz targets"
"$CLANG" "${flags[@]}" tests/native/fuzz/fuzz_wire.c offload/dataplane/wire/wire*.c -o "$BUILD/fuzz_wire"
sources=()
for source in offload/dataplane/*/*.c; do
  case $source in */calibrate.c | */certificate_check.c) ;; *) sources+=("$source") ;; esac
done
"$CLANG" "${flags[@]}" tests/native/fuzz/fuzz_front.c "${sources[@]}" "$kernels" \
  "$prefix/lib/libcrypto.a" -l:libnghttp2.so.14 -lstdc++ -lpthread -o "$BUILD/fuzz_front"

"$CLANG" "${flags[@]/-std=gnu11/-std=c++20}" -x c++ tests/native/fuzz/fuzz_peer.cc envoy_ext/module/spiffe/*.cc \
  -x none "$prefix/lib/libcrypto.a" -lstdc++ -lpthread -o "$BUILD/fuzz_peer"

for target in ${FUZZ_TARGETS:-wire front peer}; do
  echo "== fuzzing $target for $SECONDS_EACH s"
  mkdir -p "$BUILD/corpus-$target"
  "$BUILD/fuzz_$target" -max_total_time="$SECONDS_EACH" -max_len=4096 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -verbosity=0 -artifact_prefix="$BUILD/crash-$target-" "$BUILD/corpus-$target" "tests/native/fuzz/corpus/$target"
done
