// QEMU's own lock on an image file, taken by us: while it is held no QEMU, storage daemon or
// qemu-img opens the image, unless it is told to ignore locks.
#ifndef BLOCKFERRY_TARGET_IMAGE_LOCK_H_
#define BLOCKFERRY_TARGET_IMAGE_LOCK_H_

#include <string>

#include "core/status.h"

namespace blockferry {

// Locks the open file as a writer who lets nobody read or write beside it. The lock belongs to
// the open file description: it ends when the last duplicate of `fd` is closed, so also when this
// process is killed. `fd` is open for reading, at least. TARGET_IN_USE when somebody has the
// image open; TARGET_WRITE_FAILED when its file system has no locks.
Status LockImage(int fd, const std::string& path);

// Makes the file durable and drops it from the page cache, so that what is read next is what the
// disk holds. After a failed sync the cache may show bytes that never reached the disk, which a
// comparison would take for restored. What another process has mapped stays.
Status ForgetCached(int fd, const std::string& path);

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_IMAGE_LOCK_H_
