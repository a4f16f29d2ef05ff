#!/bin/sh
# Installs the Debian packages that are missing, and those named as arguments. It prints the command before it runs it;
# without root and sudo it only prints it, and fails.
set -eu

# To build:    gcc, g++, make, python3-venv, python3-dev (Python.h), libnghttp2-dev, nlohmann-json3-dev. CMake and Ninja
#              come from PyPI, and BoringSSL is built from source, with clang, as Envoy's is.
# To run:      openssl and curl, the clients of the demo and of the documented commands.
# To measure:  nghttp2-client (h2load).
# To test:     valgrind.
packages="$* gcc g++ clang make python3-venv python3-dev libnghttp2-dev nghttp2-client nlohmann-json3-dev openssl curl valgrind"

missing=""
for package in $packages; do
  if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed'; then
    missing="$missing $package"
  fi
done
# Any Python of 3.11 or later with venv serves; Debian's own is not needed then.
if python3 -c 'import venv, ensurepip' 2>/dev/null; then
  missing=$(printf '%s' "$missing" | sed 's/ python3-venv//')
fi
has_headers='import os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
if python3 -c "$has_headers" 2>/dev/null; then
  missing=$(printf '%s' "$missing" | sed 's/ python3-dev//')
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" -eq 0 ]; then
  as_root=""
elif command -v sudo >/dev/null; then
  as_root="sudo"
else
  echo "[debian] packages are missing, and this user is not root and has no sudo. Run as root, then again as now:" >&2
  echo "[debian]   apt-get install --no-install-recommends$missing" >&2
  exit 1
fi
echo "[debian] packages are missing; installing them with apt, and nothing that they only recommend:" >&2
echo "[debian]   ${as_root:+$as_root }apt-get install --no-install-recommends$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of words
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
