// A raw image file that did not exist before. Holes are kept; without Finish() the file
// is removed. What was written is on its way to the disk long before Finish() waits for it.
#ifndef BLOCKFERRY_TARGET_RAW_TARGET_H_
#define BLOCKFERRY_TARGET_RAW_TARGET_H_

#include <atomic>
#include <cstdint>
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
  std::atomic<uint64_t> written_bytes_ = 0;
  std::string path_;
  bool finished_ = false;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_RAW_TARGET_H_
