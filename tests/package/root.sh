#!/usr/bin/env bash
# Makes a clean Debian 12 in the folder $1, for the tests of the package: what a minimal installation has, systemd, and
# what the package depends on, from the mirrors that this machine's apt knows. Run by `make package-test`, as root.
set -euo pipefail
fail() { echo "make package-test: $1" >&2; exit 2; }
[[ $EUID == 0 ]] || fail "the package is installed into a Debian of its own, which only root can make and boot"
for each in mmdebstrap lintian; do
    command -v "$each" >/dev/null || fail "$each is missing: apt-get install mmdebstrap lintian"
done
mapfile -t sources < <(grep -lsE '^(deb .*|Suites:.*) bookworm( |$)' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})
[[ ${#sources[@]} != 0 ]] || fail "expected Debian 12 (bookworm) in a list of /etc/apt, found none"
rm -rf "$1" "$1.new"
mkdir -p "$(dirname "$1")"
mmdebstrap --quiet --variant=minbase --include=systemd-sysv,python3,procps,ca-certificates bookworm "$1.new" "${sources[@]}"
mv "$1.new" "$1"
touch "$1"
