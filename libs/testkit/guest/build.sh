#!/bin/sh
# Build the guest that tests boot: a Debian cloud kernel, downloaded but never
# installed, and an initramfs of busybox, the QEMU guest agent and mke2fs.
#
# Usage:  build.sh CACHE
# Prints: the folder that holds vmlinuz and initrd.gz, below CACHE. It is made
#         once per version of these scripts; several builds may run at once,
#         because the finished folder is renamed into place.
set -eu

cache=${1:?usage: build.sh CACHE}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
key=$(cat "$here/build.sh" "$here/init" "$here/freeze-hook" | sha256sum | cut -c1-12)
guest=$cache/guest-$key
if [ -e "$guest/initrd.gz" ]; then
  echo "$guest"
  exit 0
fi

for program in apt-get dpkg-deb busybox cpio gzip ldd /usr/sbin/qemu-ga /sbin/mke2fs; do
  command -v "$program" >/dev/null || {
    echo "build the test guest: $program is missing; install busybox-static cpio e2fsprogs qemu-guest-agent" >&2
    exit 1
  }
done

work=$(mktemp -d "$cache/.building-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# The meta package names the kernel package of the installed Debian release.
kernel_package() {
  apt-cache depends linux-image-cloud-amd64 2>/dev/null |
    awk '/Depends: linux-image/ {print $2; exit}'
}
package=$(kernel_package)
if [ -z "$package" ]; then
  apt-get -q update >&2
  package=$(kernel_package)
fi
[ -n "$package" ] || {
  echo "build the test guest: apt knows no linux-image-cloud-amd64; run apt-get update" >&2
  exit 1
}
# The sandbox user of apt may not write here when the build runs as root.
(cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2) || {
  apt-get -q update >&2
  (cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2)
}
dpkg-deb -x "$work/$package"_*.deb "$work/kernel"
mkdir "$work/guest"
cp "$work"/kernel/boot/vmlinuz-* "$work/guest/vmlinuz"
modules=$(echo "$work"/kernel/lib/modules/*)/kernel

root=$work/root
for folder in bin sbin dev proc sys run tmp data etc lib/modules var/run; do
  mkdir -p "$root/$folder"
done

# The guest has no depmod, so the order is the order of loading: virtio_ring comes before virtio.
for module in \
  drivers/virtio/virtio_ring drivers/virtio/virtio \
  drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev \
  drivers/virtio/virtio_pci \
  drivers/block/virtio_blk drivers/char/virtio_console \
  drivers/char/hw_random/rng-core drivers/char/hw_random/virtio-rng \
  drivers/scsi/scsi_common drivers/scsi/scsi_mod lib/crc-t10dif \
  drivers/scsi/sd_mod drivers/scsi/virtio_scsi; do
  # A module that is absent is built into this kernel.
  if [ -e "$modules/$module.ko" ]; then
    cp "$modules/$module.ko" "$root/lib/modules/"
    echo "${module##*/}.ko" >>"$root/lib/modules/order"
  fi
done

install_program() { # source, folder: copies a program and the libraries it is linked with
  cp -L "$1" "$root/$2/"
  ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root/$(dirname "$library")"
    [ -e "$root/$library" ] || cp -L "$library" "$root/$library"
  done
}
cp -L "$(command -v busybox)" "$root/bin/busybox"
install_program /usr/sbin/qemu-ga sbin
install_program /sbin/mke2fs sbin
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
install -m 755 "$here/init" "$root/init"
install -m 755 "$here/freeze-hook" "$root/etc/freeze-hook"
# guest-shutdown of the agent runs this program.
printf '#!/bin/sh\nsync\numount /data/*\npoweroff -f\n' >"$root/sbin/shutdown"
chmod 755 "$root/sbin/shutdown"

(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/guest/initrd.gz"
mv -T "$work/guest" "$guest" 2>/dev/null || [ -e "$guest/initrd.gz" ]
echo "$guest"
