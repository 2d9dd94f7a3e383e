#!/usr/bin/env bash
# Makes a clean Debian 12 in the folder $1: what a minimal installation has, systemd, what the package depends on, and the
# packages that are named after it, from the mirrors that this machine's apt knows. Run by `make package-test` and by
# tests/real/fresh, as root.
set -euo pipefail
fail() { echo "a clean Debian: $1" >&2; exit 2; }
[[ $EUID == 0 ]] || fail "only root can make and boot it"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: apt-get install mmdebstrap"
mapfile -t sources < <(grep -lsE '^(deb .*|Suites:.*) bookworm( |$)' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})
[[ ${#sources[@]} != 0 ]] || fail "expected Debian 12 (bookworm) in a list of /etc/apt, found none"
rm -rf "$1" "$1.new"
mkdir -p "$(dirname "$1")"
packages=systemd-sysv,python3,procps,ca-certificates
for each in "${@:2}"; do packages+=,$each; done
mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$1.new" "${sources[@]}"
mv "$1.new" "$1"
touch "$1"
