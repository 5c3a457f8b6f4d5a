#include "target/write_at.h"

#include <unistd.h>

#include <cerrno>

#include "target/target_failure.h"

namespace blockferry {

Status WriteAt(int fd, const std::string& path, uint64_t offset_bytes, Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset_bytes));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return TargetFailure("write at byte " + std::to_string(offset_bytes) + " of", path,
                           count < 0 ? errno : EIO);
    }
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset_bytes += static_cast<uint64_t>(count);
  }
  return Status();
}

}  // namespace blockferry
