#!/bin/sh
# Make this checkout ready to run: Debian packages, npm packages, the native addon.
#
# Usage:  tools/setup.sh [--guest] [--test]
#   --guest  also what boots the small real guest of the demo and the tests
#   --test   also what only tests and checks need
#
# Needs Debian 12 with git and Node 20 or newer. When everything is there it
# takes about a second. Everything it says goes to standard error, so that the
# command after it owns standard output.
set -eu
exec 1>&2
cd "$(dirname "$0")/.."

fail() {
  echo "setup: $*"
  exit 1
}

packages='g++ cmake ninja-build pkg-config libnbd-dev liblz4-dev libzstd-dev libssl-dev libgtest-dev'
for flag in "$@"; do
  case $flag in
    --guest)
      packages="$packages qemu-system-x86 qemu-utils libnbd-bin busybox-static cpio kmod e2fsprogs"
      packages="$packages qemu-guest-agent"
      ;;
    --test) packages="$packages nbdkit clang-format python3" ;;
    *) fail "unknown flag $flag; use --guest and --test" ;;
  esac
done

check_node() {
  command -v node >/dev/null || fail 'Node is missing; install Node 20 or newer, then try again'
  command -v npm >/dev/null || fail 'npm is missing; install the npm of your Node, then try again'
  version=$(node -p 'process.versions.node')
  [ "${version%%.*}" -ge 20 ] || fail "Node $version is too old; install Node 20 or newer"
}

missing_packages() {
  for package in $packages; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || status=missing
    [ "$status" = installed ] || printf ' %s' "$package"
  done
}

# Runs a command as root, or fails when that is not possible without a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo -n "$@"
  fi
}

install_packages() {
  command -v dpkg-query >/dev/null || fail "this is not Debian; install by hand: $packages"
  missing=$(missing_packages)
  [ -n "$missing" ] || return 0
  install="apt-get install --yes --no-install-recommends$missing"
  if ! as_root true 2>/dev/null; then
    echo 'setup: some Debian packages are missing; run this, then try again:'
    echo "  sudo apt-get update && sudo $install"
    exit 1
  fi
  echo "setup: installing$missing"
  as_root env DEBIAN_FRONTEND=noninteractive $install && return 0
  echo 'setup: the package lists may be missing or old; fetching them'
  as_root apt-get update || fail 'apt-get update failed; check the network and the sources of apt'
  as_root env DEBIAN_FRONTEND=noninteractive $install ||
    fail "apt-get could not install$missing"
}

# npm itself does not notice cheaply that node_modules is right: the digest of
# the lock file is kept beside what it installed.
install_modules() {
  stamp=node_modules/.blockferry-lock
  wanted=$(sha256sum package-lock.json)
  [ "$(cat $stamp 2>/dev/null)" != "$wanted" ] || return 0
  echo 'setup: installing npm packages'
  rm -f $stamp
  npm ci --ignore-scripts || fail 'npm ci failed; check the network and the npm registry'
  echo "$wanted" >$stamp
}

build_native() {
  [ -f native/build/build.ninja ] ||
    cmake -S native -B native/build -G Ninja >native/build.log 2>&1 ||
    native_failed
  cmake --build native/build >native/build.log 2>&1 || native_failed
  rm -f native/build.log
}

native_failed() {
  cat native/build.log
  fail 'the native addon does not build; the compiler says why above'
}

check_node
install_packages
install_modules
PATH=$PWD/node_modules/.bin:$PATH
build_native
