#!/bin/sh
# Installs the Debian packages that are missing, and those named as arguments. Without root it says what to install and
# fails.
set -eu

packages="$* gcc g++ make python3-venv libnghttp2-dev nghttp2-client nlohmann-json3-dev openssl curl valgrind"

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
[ -z "$missing" ] && exit 0

echo "[debian] installing:$missing" >&2
if [ "$(id -u)" -eq 0 ]; then
  as_root=""
elif command -v sudo >/dev/null; then
  as_root="sudo"
else
  echo "[debian] not root and no sudo; run as root:  apt-get install$missing" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of words
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
