#!/bin/sh
# Largest resident memory of one mover process: a full backup, an incremental and two restores (raw,
# qcow2) of a sparse disk with 2 GiB of data, all services in processes of their own.
#
#   sh bench/memory.sh [SIZE]      for example 10G (default) or 2T
#
# Prints VmHWM when the mover is idle, and after each step. Includes Node and its binary.
set -eu

size=${1:-10G}
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d /tmp/blockferry-memory-XXXXXX)
chmod 711 "$folder"
export BLOCKFERRY_STATE="$folder/state"
run() { "$root/apps/blockferry/bin/blockferry" "$@"; }

pids=
stop() {
  for pid in $pids; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in $pids; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap stop EXIT

# Twice, so that the code is compiled when it counts.
for round in warm measured; do
  : "$round"
  for service in postgres snapshot catalog move schedule; do
    "$root/apps/blockferry/bin/blockferry" service "$service" >"$folder/$service.log" 2>&1 </dev/null &
    pids="$pids $!"
    [ "$service" != move ] || mover=$!
  done
  for service in postgres snapshot catalog move schedule; do
    until grep -q '^Ready' "$folder/$service.log"; do sleep 0.1; done
  done
  [ "$round" = measured ] && break
  for pid in $pids; do kill -TERM "$pid"; done
  for pid in $pids; do wait "$pid" || true; done
  pids=
done

peak() { echo "$1 $(awk '/VmHWM/ { printf "%.1f MiB", $2 / 1024 }' "/proc/$mover/status")"; }

truncate -s "$size" "$folder/disk.raw"
dd if=/dev/urandom of="$folder/disk.raw" bs=1M count=1024 conv=notrunc status=none
tr '\0-\377' 'a-p' </dev/urandom 2>/dev/null |
  dd of="$folder/disk.raw" bs=1M count=1024 seek=5000 iflag=fullblock conv=notrunc status=none
run repository create memory "$folder/repository" --quiet >/dev/null
peak idle
run backup "$folder/disk.raw" --vm disk --quiet >/dev/null
peak full
dd if=/dev/urandom of="$folder/disk.raw" bs=1M count=100 seek=100 conv=notrunc status=none
run backup "$folder/disk.raw" --vm disk --quiet >/dev/null
peak incremental
run restore latest:disk --to "$folder/raw" --format raw --quiet >/dev/null
peak 'restore to raw'
rm -r "$folder/raw"
run restore latest:disk --to "$folder/qcow2" --format qcow2 --quiet >/dev/null
peak 'restore to qcow2'
run verify latest:disk --quiet >/dev/null
peak verify
