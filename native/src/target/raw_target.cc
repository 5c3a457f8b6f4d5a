#include "target/raw_target.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "target/target_failure.h"
#include "target/write_at.h"

namespace blockferry {
namespace {

// Larger than what a disk takes in one go, and far below what the kernel lets pile up. Smaller
// pieces make the calls cost more than they win.
constexpr uint64_t kWriteBackBytes = uint64_t{32} << 20;

// The name of a new file is durable once its folder is synced.
Status SyncFolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  std::string folder = ".";
  if (slash == 0) folder = "/";
  if (slash != std::string::npos && slash > 0) folder = path.substr(0, slash);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return TargetFailure("open the folder", folder, errno);
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  // Some file systems cannot sync a folder; the file itself is durable.
  if (error == 0 || error == EINVAL) return Status();
  return TargetFailure("sync the folder", folder, error);
}

}  // namespace

Result<std::unique_ptr<DiskTarget>> RawTarget::Create(const std::string& path,
                                                      uint64_t size_bytes) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return TargetFailure("create", path, errno);
  std::unique_ptr<DiskTarget> target(new RawTarget(fd, path));
  if (ftruncate(fd, static_cast<off_t>(size_bytes)) != 0) {
    return TargetFailure("extend to " + std::to_string(size_bytes) + " bytes", path, errno);
  }
  return target;
}

RawTarget::~RawTarget() {
  close(fd_);
  if (!finished_) unlink(path_.c_str());
}

Status RawTarget::Write(uint64_t offset_bytes, Bytes bytes) {
  RETURN_IF_ERROR(WriteAt(fd_, path_, offset_bytes, bytes));
  const uint64_t before = written_bytes_.fetch_add(bytes.size());
  if (before / kWriteBackBytes != (before + bytes.size()) / kWriteBackBytes) {
    // Only begins the writing; whether it succeeded is for fsync to say.
    sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE);
  }
  return Status();
}

Status RawTarget::Finish() {
  if (fsync(fd_) != 0) return TargetFailure("sync", path_, errno);
  RETURN_IF_ERROR(SyncFolderOf(path_));
  finished_ = true;
  return Status();
}

}  // namespace blockferry
