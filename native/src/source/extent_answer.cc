#include "source/extent_answer.h"

#include <algorithm>

namespace blockferry {
namespace {

// Bits of the protocol: base:allocation, and the dirty bit of QEMU's bitmap contexts.
constexpr uint32_t kStateZero = 2;
constexpr uint32_t kStateDirty = 1;

Status Refuse(const std::string& what) { return Status(reason::kSourceReadFailed, what); }

Status CheckAnswer(const char* name, const ContextAnswer& answer, uint64_t bytes_left) {
  const std::string about = std::string("the answer for ") + name;
  if (!answer.answered || answer.entries.empty()) return Refuse(about + " is empty");
  if (answer.entries.size() % 2 != 0) return Refuse(about + " is cut off");
  uint64_t total = 0;
  for (size_t i = 0; i < answer.entries.size(); i += 2) {
    if (answer.entries[i] == 0) return Refuse(about + " has an extent of no bytes");
    total += answer.entries[i];
    if (total > bytes_left) return Refuse(about + " passes the end of the disk");
  }
  return Status();
}

// Walks one answer; without one, a single entry that never ends.
class Cursor {
 public:
  Cursor(const ContextAnswer* answer, uint32_t flags_without)
      : answer_(answer), flags_(flags_without) {
    if (answer_ != nullptr) Load();
  }
  bool at_end() const { return answer_ != nullptr && index_ >= answer_->entries.size(); }
  uint64_t left() const { return left_; }
  uint32_t flags() const { return flags_; }
  void Advance(uint64_t bytes) {
    if (answer_ == nullptr) return;
    left_ -= bytes;
    if (left_ > 0) return;
    index_ += 2;
    if (!at_end()) Load();
  }

 private:
  void Load() {
    left_ = answer_->entries[index_];
    flags_ = answer_->entries[index_ + 1];
  }

  const ContextAnswer* answer_;
  size_t index_ = 0;
  uint64_t left_ = UINT64_MAX;
  uint32_t flags_;
};

}  // namespace

Status MergeAnswers(uint64_t offset_bytes, uint64_t size_bytes, const ContextAnswer* allocation,
                    const ContextAnswer* bitmap, std::vector<Extent>* extents) {
  const uint64_t bytes_left = size_bytes - offset_bytes;
  if (allocation != nullptr) {
    RETURN_IF_ERROR(CheckAnswer("base:allocation", *allocation, bytes_left));
  }
  if (bitmap != nullptr) RETURN_IF_ERROR(CheckAnswer("the bitmap", *bitmap, bytes_left));

  Cursor allocated(allocation, 0);
  Cursor dirty(bitmap, kStateDirty);
  uint64_t offset = offset_bytes;
  while (offset < size_bytes && !allocated.at_end() && !dirty.at_end()) {
    const uint64_t bytes = std::min({allocated.left(), dirty.left(), size_bytes - offset});
    const Extent extent{offset, bytes, (allocated.flags() & kStateZero) == 0,
                        (dirty.flags() & kStateDirty) != 0};
    Extent* last = extents->empty() ? nullptr : &extents->back();
    if (last != nullptr && last->allocated == extent.allocated && last->changed == extent.changed) {
      last->size_bytes += bytes;
    } else {
      extents->push_back(extent);
    }
    offset += bytes;
    allocated.Advance(bytes);
    dirty.Advance(bytes);
  }
  return Status();
}

}  // namespace blockferry
