#!/usr/bin/env bash
# Decides which llama.cpp backend this machine gets: CUDA where a toolkit is there, else Vulkan, else the CPU.
#   backend.sh            cuda | vulkan | cpu, and on standard error one line that says why
#   backend.sh --flags    the Cargo flags for it
#   backend.sh --packages Debian packages that it needs and the machine lacks
set -euo pipefail
. "$(dirname "$0")/lib.sh"

pci_vendor() { # pci_vendor HEX: whether a display controller (class 03xxxx) of this vendor is there
    local device
    for device in /sys/bus/pci/devices/*; do
        [ -r "$device/class" ] || continue
        case "$(cat "$device/class")" in 0x03*) [ "$(cat "$device/vendor")" = "$1" ] && return 0 ;; esac
    done
    return 1
}
nvidia() { [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || pci_vendor 0x10de; }
nvcc_path() { command -v nvcc || { [ -x /usr/local/cuda/bin/nvcc ] && echo /usr/local/cuda/bin/nvcc; }; }
render_node() { ls /dev/dri/renderD* >/dev/null 2>&1; }
# llama.cpp's Vulkan backend uses VK_EXT_layer_settings: headers 1.3.272 or newer (Debian 12 has 1.3.239).
vulkan_headers_fit() { grep -qs VK_EXT_layer_settings "$1"; }
has_vulkan_tools() { command -v glslc >/dev/null && vulkan_headers_fit /usr/include/vulkan/vulkan_core.h; }
apt_has_vulkan() { can_apt && at_least "$(apt-cache policy libvulkan-dev 2>/dev/null | awk '/Candidate:/{print $2}')" 1.3.272; }
can_apt() { command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; }

backend=cpu
if [ -n "${FIREPOT_BACKEND:-}" ]; then
    backend=$FIREPOT_BACKEND why="FIREPOT_BACKEND says so"
elif nvidia && nvcc_path >/dev/null; then
    backend=cuda why="an NVIDIA GPU and a CUDA toolkit are here"
elif nvidia || render_node; then
    if has_vulkan_tools || apt_has_vulkan; then
        backend=vulkan why="a GPU is here and no CUDA toolkit for it"
    else
        why="a GPU is here, but neither a CUDA toolkit nor glslc with Vulkan headers 1.3.272 or newer (Debian 13's libvulkan-dev has them)"
    fi
else
    why="no GPU was found"
fi

case "${1:-}" in
    '') say "backend: $backend ($why)"; echo "$backend" ;;
    --flags) [ "$backend" = cpu ] || echo "--features firepot/$backend" ;;
    --packages) [ "$backend" != vulkan ] || has_vulkan_tools || echo libvulkan-dev glslc spirv-headers ;;
    *) die "usage: scripts/backend.sh [--flags|--packages]" ;;
esac
