#!/usr/bin/env bash
# Behind `make up`: gets a small model when the store has none, then serves.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

firepot=$1
shift
if [ $# -eq 0 ] && [ "$("$firepot" list --json)" = '[]' ]; then
    file=${CARGO_TARGET_DIR:-target}/test-model/SmolLM2-135M-Instruct.Q4_1.gguf
    scripts/fetch-model.sh "$file"
    "$firepot" import "$file" smollm2:135m
fi
exec "$firepot" up "$@"
