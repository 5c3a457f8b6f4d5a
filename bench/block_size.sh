#!/bin/sh
# What another size of a block would store, read and cost: bench/block_size.sh CORPUS [FOLDER]
#
# CORPUS is a folder that the peers harness's corpus program made. Builds the line once for each size,
# below native/build-block; backs up A, B, D, C, then A and C of day 2, as one night of one repository
# in FOLDER (the corpus's), three times each; JSON lines.
set -eu
corpus=$(readlink -f "$1")
folder=$(readlink -f "${2:-$1}")
native=$(dirname "$(dirname "$(readlink -f "$0")")")/native
repository=$folder/.block-size
trap 'rm -rf "$repository"' EXIT

for kib in 16 32 64 128 256 1024; do
  build=$native/build-block/$kib
  cmake -G Ninja -S "$native" -B "$build" -D BLOCKFERRY_BLOCK_SIZE=$((kib * 1024)) \
    -D BLOCKFERRY_OUT="$build/out" >/dev/null
  cmake --build "$build" --target block_size >/dev/null
done
for _ in 1 2 3; do
  for kib in 16 32 64 128 256 1024; do
    rm -rf "$repository"
    sync -f "$folder"
    "$native/build-block/$kib/out/block_size" "$repository" \
      "a=$corpus/day1/vm-a.raw" "b=$corpus/day1/vm-b.raw" "d=$corpus/day1/vm-d.raw" \
      "c=$corpus/day1/vm-c.raw" "a=$corpus/day2/vm-a.raw=$corpus/day1/vm-a.raw" \
      "c=$corpus/day2/vm-c.raw=$corpus/day1/vm-c.raw"
  done
done
