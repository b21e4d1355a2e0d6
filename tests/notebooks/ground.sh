#!/usr/bin/env bash
# ground.sh ROOT PROGRAM [ARGS]: runs a program in a machine whose folders are this one's, but for those that lie in ROOT already (such as
# /kaggle, /content and /tmp). In a user and mount namespace of its own: nothing of it stays.
set -euo pipefail
if [ "$1" != --inside ]; then
    exec unshare --user --map-root-user --mount "$0" --inside "$@"
fi
root=$2
shift 2
for entry in /*; do
    place=$root$entry
    # What is empty was made for a mount of an earlier run.
    if [ -L "$place" ] || [ -n "$(ls -A "$place" 2>/dev/null)" ]; then continue; fi
    if [ -L "$entry" ]; then
        cp -P "$entry" "$place"
    elif [ -d "$entry" ]; then
        mkdir -p "$place"
        mount --rbind "$entry" "$place"
    fi
done
exec chroot "$root" "$@"
