#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that building needs; with --tests also those of the test suite.
# As root or with sudo. Does nothing, and needs neither, when all of them are there.
set -euo pipefail

packages=(build-essential cmake ninja-build pkg-config ca-certificates curl
    python3 python3-pip python3-venv
    libcivetweb-dev libcjson-dev libopenblas-dev libpcre2-dev libutf8proc-dev
    libssl-dev libsqlite3-dev libpq-dev libjemalloc-dev libcurl4-openssl-dev)
case "${1:-}" in
--tests) packages+=(libcmocka-dev libsimde-dev openssl clang clang-format libclang-rt-14-dev
    util-linux postgresql-15 libopenmpi-dev openmpi-bin) ;;
"") ;;
*)
    echo "usage: $0 [--tests]" >&2
    exit 2
    ;;
esac

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "these Debian packages are missing; install them as root: ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "installing Debian packages: ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
