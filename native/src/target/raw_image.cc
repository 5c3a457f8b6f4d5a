#include "target/raw_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "target/target_failure.h"
#include "target/write_at.h"

namespace blockferry {
namespace {

constexpr size_t kZeroesSize = 64 * 1024;

}  // namespace

RawImage::RawImage(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

RawImage::~RawImage() { close(fd_); }

Status RawImage::Write(uint64_t offset_bytes, Bytes bytes) {
  return WriteAt(fd_, path_, offset_bytes, bytes);
}

Status RawImage::Zero(uint64_t offset_bytes, uint64_t size_bytes) {
  const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  int result = -1;
  do {
    result =
        fallocate(fd_, punch, static_cast<off_t>(offset_bytes), static_cast<off_t>(size_bytes));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Status();
  if (errno != EOPNOTSUPP && errno != ENOSYS) {
    return TargetFailure("make a hole at byte " + std::to_string(offset_bytes) + " of", path_,
                         errno);
  }
  const ByteVector zeroes(static_cast<size_t>(std::min<uint64_t>(size_bytes, kZeroesSize)));
  for (uint64_t done = 0; done < size_bytes; done += zeroes.size()) {
    const size_t size = static_cast<size_t>(std::min<uint64_t>(zeroes.size(), size_bytes - done));
    RETURN_IF_ERROR(WriteAt(fd_, path_, offset_bytes + done, Bytes(zeroes).first(size)));
  }
  return Status();
}

Status RawImage::Finish() {
  if (fsync(fd_) != 0) return TargetFailure("sync", path_, errno);
  return Status();
}

}  // namespace blockferry
