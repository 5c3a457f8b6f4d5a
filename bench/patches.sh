#!/bin/sh
# What patches store, by the share of a whole block that one may take: bench/patches.sh CORPUS [FOLDER]
#
# CORPUS is a folder that the peers harness's corpus program made. Builds the line once for each share,
# below native/build-patches; backs vm-c up on 15 days in FOLDER (the corpus's); JSON lines.
set -eu
corpus=$(readlink -f "$1")
folder=$(readlink -f "${2:-$1}")/.patches
native=$(dirname "$(dirname "$(readlink -f "$0")")")/native
trap 'rm -rf "$folder"' EXIT

for share in 0 0.25 0.5 0.75; do
  build=$native/build-patches/$share
  cmake -G Ninja -S "$native" -B "$build" -D BLOCKFERRY_PATCH_SHARE="$share" \
    -D BLOCKFERRY_OUT="$build/out" >/dev/null
  cmake --build "$build" --target patches >/dev/null
done
for share in 0 0.25 0.5 0.75; do
  rm -rf "$folder"
  echo "{\"share\": $share}"
  "$native/build-patches/$share/out/patches" "$folder" "$corpus/day1/vm-c.raw" 15
done
