#!/bin/sh
# Checks the layout of the C++ sources; with --write it puts it right.
set -eu
cd "$(dirname "$0")"
mode="--dry-run --Werror"
[ "${1:-}" = "--write" ] && mode="-i"
# shellcheck disable=SC2086
find src addon fuzz ../bench \( -name '*.cc' -o -name '*.h' \) -print0 2>/dev/null | xargs -0 -r clang-format $mode
