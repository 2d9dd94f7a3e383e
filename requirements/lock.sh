#!/usr/bin/env bash
# Resolves what the two pyproject.toml files and dev.in ask for into lock.txt, the part without dev.in into runtime.txt,
# and fuzz.in, man.in and sdks.in into the .txt beside them: exact versions with hashes, no index and no address.
# `make lock` runs this script. It changes a version only with `make lock UPGRADE=--upgrade`.
set -euo pipefail
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet pip-tools
"$scratch/venv/bin/python" - ../pyproject.toml ../client/pyproject.toml >"$scratch/project.in" <<'PY'
import sys, tomllib
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        for requirement in tomllib.load(file)["project"]["dependencies"]:
            if not requirement.startswith("brokerd-client"):
                print(requirement)
PY
resolve() { # OUTPUT INPUT...
    "$scratch/venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
        --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options ${UPGRADE:-} \
        --output-file "$@"
}
resolve lock.txt "$scratch/project.in" dev.in
resolve runtime.txt "$scratch/project.in" --constraint lock.txt
resolve fuzz.txt fuzz.in
resolve man.txt man.in
resolve sdks.txt sdks.in
