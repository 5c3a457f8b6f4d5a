#include "repository/index_merge.h"

#include <algorithm>

namespace blockferry {
namespace {

// Walks over the entries of one file whose packs are wanted.
class Cursor {
 public:
  Cursor(const IndexFile* file, std::span<const uint32_t> packs) : file_(file) {
    positions_.reserve(file->numbers().size());
    for (const uint32_t number : file->numbers()) positions_.push_back(PositionOf(packs, number));
  }

  bool is_at_end() const { return at_ == entries_.size(); }
  const IndexEntry& entry() const { return entries_[at_]; }

  // To the first entry, or the next one.
  Status Advance(const std::function<bool()>& keep_on) {
    if (!is_at_end()) ++at_;
    for (;;) {
      for (; !is_at_end(); ++at_) {
        const uint32_t position = positions_[entries_[at_].pack];
        if (position == kNoPosition) continue;
        entries_[at_].pack = position;
        return {};
      }
      if (group_ == file_->group_count()) return {};
      if (!keep_on()) return Status(reason::kCancelled, "merge index files: the index was closed");
      RETURN_IF_ERROR(file_->ReadGroup(group_++, &buffer_, &entries_));
      at_ = 0;
    }
  }

 private:
  const IndexFile* file_;
  std::vector<uint32_t> positions_;  // In the new file, of the packs of this one.
  uint32_t group_ = 0;
  ByteVector buffer_;
  std::vector<IndexEntry> entries_;
  size_t at_ = 0;
};

// The entries of one key, sorted as a file has them.
Status AddAll(std::vector<IndexEntry>* entries, IndexWriter* writer) {
  std::sort(entries->begin(), entries->end());
  entries->erase(std::unique(entries->begin(), entries->end()), entries->end());
  for (const IndexEntry& entry : *entries) RETURN_IF_ERROR(writer->Add(entry));
  entries->clear();
  return {};
}

}  // namespace

uint32_t PositionOf(std::span<const uint32_t> packs, uint32_t number) {
  const auto at = std::lower_bound(packs.begin(), packs.end(), number);
  if (at == packs.end() || *at != number) return kNoPosition;
  return static_cast<uint32_t>(at - packs.begin());
}

Status MergeIndexFiles(const IndexFiles& files, std::span<const uint32_t> packs,
                       const std::function<bool()>& keep_on, IndexWriter* writer) {
  std::vector<Cursor> cursors;
  for (const auto& file : files) {
    cursors.emplace_back(file.get(), packs);
    RETURN_IF_ERROR(cursors.back().Advance(keep_on));
  }
  std::vector<IndexEntry> equal;
  for (;;) {
    Cursor* least = nullptr;
    for (Cursor& cursor : cursors) {
      if (cursor.is_at_end()) continue;
      if (least == nullptr || cursor.entry().key < least->entry().key) least = &cursor;
    }
    const bool is_other =
        !equal.empty() && (least == nullptr || least->entry().key != equal.front().key);
    if (is_other) RETURN_IF_ERROR(AddAll(&equal, writer));
    if (least == nullptr) return {};
    equal.push_back(least->entry());
    RETURN_IF_ERROR(least->Advance(keep_on));
  }
}

}  // namespace blockferry
