// The protocol of QEMU's file driver (file-posix.c), which running machines depend on: whoever
// uses permission n of an image holds a read lock on byte 100 + n, whoever refuses permission n to
// others holds one on byte 200 + n. First all are taken, then it is asked whether anybody else
// holds the opposite one: of two that come at once at least one sees the other.
#include "target/image_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "target/target_failure.h"

namespace blockferry {
namespace {

constexpr off_t kUsedBase = 100;
constexpr off_t kRefusedBase = 200;

// BLK_PERM_…: the numbers are part of the protocol.
constexpr off_t kConsistentRead = 0;
constexpr off_t kWrite = 1;
constexpr off_t kWriteUnchanged = 2;
constexpr off_t kResize = 3;

constexpr off_t kUsed[] = {kConsistentRead, kWrite, kWriteUnchanged, kResize};
// An image that is half restored is not consistent for any reader.
constexpr off_t kRefused[] = {kConsistentRead, kWrite, kResize};

struct flock ByteLock(short type, off_t byte) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

Status Take(int fd, const std::string& path, off_t byte) {
  struct flock lock = ByteLock(F_RDLCK, byte);
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return Status();
  return Status(reason::kTargetWriteFailed,
                "lock " + path + ": " + std::strerror(errno) +
                    "; its file system keeps no locks, so a machine could be started meanwhile: "
                    "restore to another folder",
                {{"target", path}, {"cause", std::strerror(errno)}});
}

Status CheckNobody(int fd, const std::string& path, off_t byte) {
  struct flock lock = ByteLock(F_WRLCK, byte);
  if (fcntl(fd, F_OFD_GETLK, &lock) != 0) {
    return TargetFailure("ask for locks of", path, errno);
  }
  if (lock.l_type == F_UNLCK) return Status();
  return Status(reason::kTargetInUse,
                "restore over " + path + ": another process has it open; power the VM off first",
                {{"target", path}});
}

Status TakeAndCheck(int fd, const std::string& path) {
  for (const off_t used : kUsed) RETURN_IF_ERROR(Take(fd, path, kUsedBase + used));
  for (const off_t refused : kRefused) RETURN_IF_ERROR(Take(fd, path, kRefusedBase + refused));
  for (const off_t used : kUsed) RETURN_IF_ERROR(CheckNobody(fd, path, kRefusedBase + used));
  for (const off_t refused : kRefused) RETURN_IF_ERROR(CheckNobody(fd, path, kUsedBase + refused));
  return Status();
}

}  // namespace

Status LockImage(int fd, const std::string& path) {
  const Status taken = TakeAndCheck(fd, path);
  if (taken.ok()) return taken;
  struct flock all = ByteLock(F_UNLCK, 0);
  all.l_len = 0;
  fcntl(fd, F_OFD_SETLK, &all);
  return taken;
}

Status ForgetCached(int fd, const std::string& path) {
  if (fsync(fd) != 0) return TargetFailure("sync", path, errno);
  const int error = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  if (error != 0) return TargetFailure("drop the cached bytes of", path, error);
  return Status();
}

}  // namespace blockferry
