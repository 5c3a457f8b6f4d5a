#!/bin/sh
# Every check that is not a test, all of them even when one fails. Each prints
# one line, `lint: NAME passed` or `lint: NAME failed`, after what it found.
cd "$(dirname "$0")/../.." || exit 1
PATH=$PWD/node_modules/.bin:$PATH
status=0

check() {
  name=$1
  shift
  if "$@"; then
    echo "lint: $name passed"
  else
    echo "lint: $name failed"
    status=1
  fi
}

# The image of the last release is what others have compiled against.
breaking() {
  buf breaking --against proto/released.binpb
}

# Generated code is checked in: generating it again must change nothing.
generated() (
  fresh=$(mktemp -d) || return 1
  trap 'rm -rf "$fresh"' EXIT
  buf generate -o "$fresh" &&
    diff -r "$fresh/libs/proto/src/gen" libs/proto/src/gen &&
    buf build -o "$fresh/descriptors.binpb" &&
    cmp "$fresh/descriptors.binpb" libs/proto/descriptors.binpb
)

check 'biome' biome ci --colors=off .
check 'types' tsc -b
check 'c++ format' sh native/format.sh
check 'proto' buf lint
check 'proto breaking' breaking
check 'generated code' generated
exit $status
