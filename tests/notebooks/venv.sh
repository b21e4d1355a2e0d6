#!/usr/bin/env bash
# venv.sh DIR: a fresh Python environment with a notebook's packages and without Firepot, in a moment: it borrows those packages from the
# one that `scripts/setup.sh test` made.
set -euo pipefail
lender=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")/../.." && pwd)/target}/notebook-venv
"$lender/bin/python" -m venv "$1"
site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$lender/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/borrowed.pth"
