#!/usr/bin/env bash
# Builds the Debian package into dist/, in a copy of the tree: the runtime's wheels by their hashes, ours, then debhelper
# (rules). The same tree gives the same bytes. Run by `make deb`; DIST= is another folder than dist/.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
fail() { echo "make deb: $1" >&2; exit 2; }
[[ $(/usr/bin/python3 -c 'import sys; print(*sys.version_info[:2])' 2>&1) == "3 11" ]] ||
    fail "expected Debian 12, whose /usr/bin/python3 is 3.11; if it is Debian 12: apt-get install python3"
command -v dh >/dev/null || fail "debhelper is missing: apt-get install debhelper"

dist=${DIST:-dist} python=$PWD/.venv/bin/python
mkdir -p "$dist" && dist=$(realpath "$dist")
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' brokerd/__init__.py)
version=${version/.dev/\~dev} # dpkg takes what follows a tilde for earlier, and 0.3.0.dev0 for later than 0.3.0
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)} PYTHON=$python LC_ALL=C.UTF-8 TZ=UTC
scratch=$(mktemp -d) work=$scratch/brokerd
trap 'rm -rf "$scratch"' EXIT
mkdir "$work"
cp -R README.md CHANGELOG.md LICENSE pyproject.toml brokerd client debian docs examples systemd "$work"

"$python" -m pip --quiet --disable-pip-version-check --python /usr/bin/python3 download --dest "$work/wheels" \
    --no-deps --only-binary :all: --require-hashes -r requirements/runtime.txt
cd "$work"
"$python" -m flit_core.wheel --outdir wheels .
"$python" -m flit_core.wheel --outdir wheels client
cat >debian/changelog <<CHANGELOG
brokerd ($version-1) bookworm; urgency=medium

  * What has changed: changelog.gz beside this file.

 -- $(sed -n 's/^Maintainer: //p' debian/control)  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
CHANGELOG
make -f debian/rules binary
rm -f "$dist"/brokerd_*.deb
mv ../brokerd_"$version"-1_*.deb "$dist"
