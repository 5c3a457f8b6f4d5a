// A raw image file that did not exist before. Holes are kept; without Finish() the file
// is removed.
#ifndef BLOCKFERRY_TARGET_RAW_TARGET_H_
#define BLOCKFERRY_TARGET_RAW_TARGET_H_

#include <memory>
#include <string>

#include "target/disk_target.h"

namespace blockferry {

class RawTarget final : public DiskTarget {
 public:
  static Result<std::unique_ptr<DiskTarget>> Create(const std::string& path, uint64_t size_bytes);
  ~RawTarget() override;
  RawTarget(const RawTarget&) = delete;
  RawTarget& operator=(const RawTarget&) = delete;

  Status Write(uint64_t offset_bytes, Bytes bytes) override;
  Status Finish() override;

 private:
  RawTarget(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  int fd_;
  std::string path_;
  bool finished_ = false;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_RAW_TARGET_H_
