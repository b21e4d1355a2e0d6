#!/usr/bin/env bash
# Installs what `make build` or `make test` needs and the machine lacks.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

RUST_MIN=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
RUST_HINT="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"

need_rust() {
    command -v cargo >/dev/null || die "Rust is not installed" "$RUST_HINT"
    local have
    have=$(rustc --version | cut -d' ' -f2)
    at_least "$have" "$RUST_MIN" || die "Rust $have is too old: $RUST_MIN or newer is needed" "rustup update stable   (or: $RUST_HINT)"
}

has_libclang() { ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* 2>/dev/null | grep -qv cpp || [ -n "${LIBCLANG_PATH:-}" ]; }

need_build() {
    need_rust
    local packages=()
    command -v cmake >/dev/null || packages+=(cmake)
    command -v c++ >/dev/null || packages+=(g++)
    command -v make >/dev/null || packages+=(make)
    has_libclang || packages+=(libclang-dev)
    [ ${#packages[@]} -eq 0 ] || apt_install "${packages[@]}"
    apt_install $(scripts/backend.sh --packages)
    need_node
    need_npm web "the page's build tools"
}

# Node comes by pip where the machine has none that is new enough.
need_node() {
    if ! command -v node >/dev/null; then
        need_python
        python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
    fi
    scripts/node.sh --version >/dev/null
}

need_npm() { # need_npm FOLDER WHAT: installs what the folder's lock file names
    if [ "$1/node_modules/.package-lock.json" -nt "$1/package-lock.json" ]; then return 0; fi
    say "installing $2 (npm, into $1/node_modules)"
    scripts/node.sh npm ci --prefix "$1" --no-audit --no-fund --no-update-notifier --loglevel=error
    touch "$1/node_modules/.package-lock.json"
}

need_python() {
    command -v python3 >/dev/null || apt_install python3
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
}

# nginx and docker-registry stand for the model hubs in tests, OpenSSH's server for the other end of a tunnel. They are unpacked and not installed: Debian's packages would
# start them as services.
need_servers() {
    local tools=${CARGO_TARGET_DIR:-target}/tools package
    has_tool() {
        local name=${1/openssh-server/sshd}
        command -v "$name" >/dev/null || [ -x "$tools/usr/sbin/$name" ] || [ -x "$tools/usr/bin/$name" ]
    }
    for package in nginx docker-registry openssh-server; do
        has_tool $package && continue
        say "fetching $package for the tests (apt, into $tools)"
        command -v apt-get >/dev/null || die "$package is missing" "install $package with your package manager"
        mkdir -p "$tools"
        (cd "$tools" && rm -f "$package"_*.deb && apt_download "$package" && dpkg -x "$package"_*.deb . && rm -f "$package"_*.deb)
    done
    # A library of sshd that not every machine has.
    if ! ldconfig -p | grep -q libwrap && [ -z "$(find "$tools" -name 'libwrap.so*' 2>/dev/null)" ]; then
        (cd "$tools" && apt_download libwrap0 && dpkg -x libwrap0_*.deb . && rm -f libwrap0_*.deb)
    fi
    command -v ssh >/dev/null || apt_install openssh-client
}

need_venv() { # need_venv NAME WHAT FILE...: a Python environment in the target folder with what the files name
    local venv=${CARGO_TARGET_DIR:-target}/$1 what=$2
    shift 2
    need_python
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
    if ! cat "$@" | cmp -s - "$venv/requirements.txt"; then
        say "installing $what (pip, into $venv)"
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install -q --disable-pip-version-check ${@/#/-r }
        cat "$@" >"$venv/requirements.txt"
    fi
}

# A notebook has no Rust, and who builds the wheel there has asked for it.
rust_of_notebook() {
    command -v cargo >/dev/null && return 0
    say "installing Rust (rustup, into ~/.cargo)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal
    export PATH="$HOME/.cargo/bin:$PATH"
}

need_wheel() {
    need_build
    command -v strip >/dev/null || apt_install binutils
    need_venv wheel-venv "what builds the wheel" python/build-requirements.txt
}

need_test() {
    need_wheel
    need_venv venv "the official clients and test tools" tests/requirements.txt
    need_venv notebook-venv "Jupyter for the notebooks' tests" tests/notebooks/requirements.txt
    command -v chromium >/dev/null || apt_install chromium
    need_servers
    need_npm tests/page "the page test's tools"
}

case "${1:-}" in
    build) need_build ;;
    web) need_node && need_npm web "the page's build tools" ;;
    model) need_python ;;
    wheel) need_wheel ;;
    notebook) rust_of_notebook && need_wheel ;;
    test) need_test ;;
    *) die "usage: scripts/setup.sh build|web|model|wheel|notebook|test" ;;
esac
