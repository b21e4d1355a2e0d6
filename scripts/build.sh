#!/usr/bin/env bash
# Builds the program with the backend that fits this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

backend=$(scripts/backend.sh)
if [ "$backend" = cuda ]; then
    command -v nvcc >/dev/null || export PATH="/usr/local/cuda/bin:$PATH"
    export CMAKE_CUDA_ARCHITECTURES="${CMAKE_CUDA_ARCHITECTURES:-native}"
    # Debian's toolkit 11.8 wants a host compiler no newer than 11.
    if [ -x /usr/bin/g++-11 ] && nvcc --version | grep -q 'release 11\.'; then
        export CMAKE_CUDA_HOST_COMPILER=/usr/bin/g++-11
    fi
fi
scripts/web.sh
[ -d "${CARGO_TARGET_DIR:-target}/release/build" ] || say "first build: llama.cpp is compiled, which takes some minutes"
cargo build --release --workspace $(scripts/backend.sh --flags)
