#!/bin/sh
# Check the format of all C++ files; with --write, mend it.
set -eu
cd "$(dirname "$0")"
find src addon fuzz -name '*.cc' -o -name '*.h' 2>/dev/null | sort |
  if [ "${1:-}" = --write ]; then
    xargs --no-run-if-empty clang-format -i
  else
    xargs --no-run-if-empty clang-format --dry-run -Werror
  fi
