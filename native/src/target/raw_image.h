// A raw image file that is changed in place.
#ifndef BLOCKFERRY_TARGET_RAW_IMAGE_H_
#define BLOCKFERRY_TARGET_RAW_IMAGE_H_

#include <string>

#include "target/disk_image.h"

namespace blockferry {

class RawImage final : public DiskImage {
 public:
  // `fd` is open for writing and belongs to the image from now on; `path` names it in a failure.
  RawImage(int fd, std::string path);
  ~RawImage() override;
  RawImage(const RawImage&) = delete;
  RawImage& operator=(const RawImage&) = delete;

  Status Write(uint64_t offset_bytes, Bytes bytes) override;
  // Punches a hole; writes zeroes where the file system has none.
  Status Zero(uint64_t offset_bytes, uint64_t size_bytes) override;
  Status Finish() override;

 private:
  const int fd_;
  const std::string path_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_RAW_IMAGE_H_
