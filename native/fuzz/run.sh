#!/bin/sh
# Fuzzes every decoder of foreign bytes with libFuzzer under ASan and UBSan.
#
#   native/fuzz/run.sh [RUNS]       executions of each target, 10,000,000 unless given
#
# Needs clang and its run-time library. A finding is left in the folder native/build-fuzz and ends the
# script; put its input into native/fuzz/corpus/TARGET when it is mended. Inputs that reach new code are
# added to the corpus afterwards, the smallest set of them.
set -eu
cd "$(dirname "$0")/.."
runs=${1:-10000000}
cmake -S . -B build-fuzz -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_COMPILER=clang \
  -DBLOCKFERRY_FUZZ=ON -DBLOCKFERRY_SANITIZE=address,undefined -DBLOCKFERRY_OUT="$PWD/build-fuzz/out"
cmake --build build-fuzz --target fuzzPack fuzzMapNode fuzzManifest fuzzKeySlot fuzzIndex fuzzExtentAnswer
for each in Pack:pack MapNode:map_node Manifest:manifest KeySlot:key_slot Index:index ExtentAnswer:extent_answer; do
  program=$PWD/build-fuzz/out/fuzz${each%%:*}
  corpus=$PWD/fuzz/corpus/${each#*:}
  found=$PWD/build-fuzz/${each#*:}
  mkdir -p "$corpus" "$found"
  BLOCKFERRY_SEEDS=$corpus "$program" -runs=0 "$corpus" >/dev/null 2>&1
  echo "${each#*:}: $runs executions"
  (cd build-fuzz && "$program" -runs="$runs" -max_len=4096 -seed=2026 -print_final_stats=1 \
    -verbosity=0 "$found" "$corpus")
  smallest=$(mktemp -d)
  "$program" -merge=1 -max_len=4096 "$smallest" "$corpus" "$found" >/dev/null 2>&1
  cp -n "$smallest"/* "$corpus"/
  rm -r "$smallest"
done
