// For tests only: a disk in memory with extents as the test says, and reads that fail on
// demand. It checks what callers promise.
#ifndef BLOCKFERRY_SOURCE_FAKE_SOURCE_H_
#define BLOCKFERRY_SOURCE_FAKE_SOURCE_H_

#include <algorithm>
#include <atomic>
#include <cassert>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "source/block_source.h"

namespace blockferry {

class FakeSource final : public BlockSource {
 public:
  // `extents` cover the disk without gaps.
  FakeSource(std::vector<Extent> extents, ByteVector content)
      : extents_(std::move(extents)), content_(std::move(content)) {
    if (!extents_.empty()) size_bytes_ = extents_.back().end_bytes();
  }

  // The read with this number, counted from 0, fails.
  void FailRead(size_t number) { failing_read_ = number; }

  // Any thread may ask.
  size_t reads_under_way() const { return reads_under_way_; }
  size_t reads_under_way_max() const { return reads_under_way_max_; }
  uint64_t bytes_read() const { return bytes_read_; }

  uint64_t size_bytes() const override { return size_bytes_; }

  Result<Extent> ExtentAt(uint64_t offset_bytes) override {
    assert(offset_bytes < size_bytes_);
    const auto found = std::find_if(extents_.begin(), extents_.end(), [&](const Extent& extent) {
      return offset_bytes < extent.end_bytes();
    });
    Extent extent = *found;
    extent.size_bytes = found->end_bytes() - offset_bytes;
    extent.offset_bytes = offset_bytes;
    return extent;
  }

  Status Submit(uint64_t offset_bytes, std::span<std::byte> buffer) override {
    assert(reads_.size() < kReadCountMax && !buffer.empty());
    assert(buffer.size() <= kReadSizeBytesMax && offset_bytes + buffer.size() <= size_bytes_);
    reads_.emplace_back(offset_bytes, buffer);
    reads_under_way_ = reads_.size();
    reads_under_way_max_ = std::max(reads_under_way_max_, reads_.size());
    return Status();
  }

  Status Await() override {
    assert(!reads_.empty());
    const auto [offset_bytes, buffer] = reads_.front();
    reads_.pop_front();
    reads_under_way_ = reads_.size();
    if (failing_read_ == read_number_++) {
      return Status(reason::kSourceReadFailed, "read the fake disk: as the test wanted");
    }
    const Bytes content = content_;
    for (size_t i = 0; i < buffer.size(); ++i) {
      const uint64_t at = offset_bytes + i;
      buffer[i] = at < content.size() ? content[at] : std::byte{0};
    }
    bytes_read_ += buffer.size();
    return Status();
  }

 private:
  std::vector<Extent> extents_;
  ByteVector content_;
  uint64_t size_bytes_ = 0;
  std::deque<std::pair<uint64_t, std::span<std::byte>>> reads_;
  std::optional<size_t> failing_read_;
  size_t read_number_ = 0;
  std::atomic<size_t> reads_under_way_ = 0;
  size_t reads_under_way_max_ = 0;
  uint64_t bytes_read_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_SOURCE_FAKE_SOURCE_H_
