# Shared by the other scripts: messages and apt. Sourced, not run.

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$1" >&2; [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2; exit 1; }

# apt_install PACKAGE...: installs what is missing, through apt where that is allowed, else says what to run.
apt_install() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || die "missing packages: ${missing[*]}" "sudo apt-get install ${missing[*]}"
        as_root=(sudo -n)
    fi
    command -v apt-get >/dev/null || die "missing packages (Debian names): ${missing[*]}" "install them with your system's package manager"
    say "installing ${missing[*]} (apt)"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# apt_download PACKAGE: its file into this folder; nothing is installed.
apt_download() {
    apt-get download -qq "$1" 2>/dev/null && return 0
    if [ "$(id -u)" -eq 0 ]; then apt-get update -qq; else sudo -n apt-get update -qq; fi
    apt-get download -qq "$1" 2>/dev/null || die "$1 cannot be fetched" "sudo apt-get install $1"
}

# at_least HAVE WANT: whether a version is not older.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
