#!/usr/bin/env bash
# Builds the chat page into web/dist when its sources have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

changed() { find web -name node_modules -prune -o -name dist -prune -o -type f -newer web/dist/index.html -print -quit; }

if [ -f web/dist/index.html ] && [ -z "$(changed)" ]; then exit 0; fi
say "building the chat page (vite, into web/dist)"
scripts/node.sh npm run --prefix web --silent build -- --logLevel warn
