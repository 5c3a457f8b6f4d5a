#include "source/raw_source.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace blockferry {
namespace {

Status OpenFailure(const std::string& path, int error) {
  std::string_view found = reason::kSourceUnreachable;
  const char* advice = "check the path and the file system";
  if (error == ENOENT || error == ENOTDIR) {
    found = reason::kImageMissing;
    advice = "check the path of the disk image";
  } else if (error == EACCES || error == EPERM) {
    found = reason::kHostDenied;
    advice = "let this user read the image";
  }
  return Status(found, "open " + path + ": " + std::strerror(error) + "; " + advice,
                {{"path", path}});
}

Status ReadFailure(const std::string& path, uint64_t offset_bytes, const std::string& what) {
  const std::string offset = std::to_string(offset_bytes);
  return Status(
      reason::kSourceReadFailed,
      "read " + path + " at byte " + offset + ": " + what + "; check the storage and run it again",
      {{"path", path}, {"offset_bytes", offset}});
}

}  // namespace

RawSource::RawSource(int fd, std::string path, uint64_t size_bytes, bool knows_holes,
                     const Cancel* cancel)
    : fd_(fd),
      path_(std::move(path)),
      size_bytes_(size_bytes),
      knows_holes_(knows_holes),
      cancel_(cancel) {}

RawSource::~RawSource() { close(fd_); }

Result<std::unique_ptr<BlockSource>> RawSource::Open(const std::string& path, uint64_t size_bytes,
                                                     const Cancel* cancel) {
  // Non-blocking, so that a pipe in the place of an image is refused instead of waited for.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return OpenFailure(path, errno);
  return OfFile(fd, path, size_bytes, cancel);
}

Result<std::unique_ptr<BlockSource>> RawSource::OfFile(int fd, const std::string& path,
                                                       uint64_t size_bytes, const Cancel* cancel) {
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    close(fd);
    return OpenFailure(path, error);
  }
  const bool is_device = S_ISBLK(info.st_mode);
  uint64_t found_bytes = static_cast<uint64_t>(info.st_size);
  if (is_device && ioctl(fd, BLKGETSIZE64, &found_bytes) != 0) {
    const int error = errno;
    close(fd);
    return OpenFailure(path, error);
  }
  if (!is_device && !S_ISREG(info.st_mode)) {
    close(fd);
    return Status(reason::kImageFormatWrong,
                  "open " + path + ": it is neither a file nor a block device; name a disk image",
                  {{"path", path}});
  }
  if (found_bytes != size_bytes) {
    close(fd);
    const std::string found = std::to_string(found_bytes);
    const std::string promised = std::to_string(size_bytes);
    return Status(reason::kDiskSizeMismatch,
                  "open " + path + ": it has " + found + " bytes, " + promised +
                      " were promised; take a new point",
                  {{"path", path}, {"found_bytes", found}, {"promised_bytes", promised}});
  }
  posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  return std::unique_ptr<BlockSource>(new RawSource(fd, path, size_bytes, !is_device, cancel));
}

Result<Extent> RawSource::ExtentAt(uint64_t offset_bytes) {
  RETURN_IF_ERROR(cancel_->Check());
  Extent extent{offset_bytes, size_bytes_ - offset_bytes, true, true};
  if (!knows_holes_) return extent;
  const off_t offset = static_cast<off_t>(offset_bytes);
  const off_t data = lseek(fd_, offset, SEEK_DATA);
  if (data < 0) {
    // ENXIO: no data from here to the end. EINVAL: the file system does not say.
    if (errno == ENXIO) extent.allocated = false;
    if (errno == ENXIO || errno == EINVAL || errno == EOPNOTSUPP) return extent;
    return ReadFailure(path_, offset_bytes, std::strerror(errno));
  }
  uint64_t end = static_cast<uint64_t>(data);
  extent.allocated = data == offset;
  if (extent.allocated) {
    const off_t hole = lseek(fd_, offset, SEEK_HOLE);
    if (hole <= offset) return ReadFailure(path_, offset_bytes, "the file changed its size");
    end = static_cast<uint64_t>(hole);
  }
  extent.size_bytes = std::min(end, size_bytes_) - offset_bytes;
  return extent;
}

Status RawSource::Submit(uint64_t offset_bytes, std::span<std::byte> buffer) {
  reads_.push_back({offset_bytes, buffer});
  return Status();
}

Status RawSource::Await() {
  RETURN_IF_ERROR(cancel_->Check());
  auto [offset_bytes, buffer] = reads_.front();
  reads_.pop_front();
  while (!buffer.empty()) {
    const ssize_t count =
        pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(offset_bytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ReadFailure(path_, offset_bytes, std::strerror(errno));
    if (count == 0) return ReadFailure(path_, offset_bytes, "the file ends before its size");
    buffer = buffer.subspan(static_cast<size_t>(count));
    offset_bytes += static_cast<uint64_t>(count);
  }
  return Status();
}

}  // namespace blockferry
