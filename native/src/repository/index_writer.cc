#include "repository/index_writer.h"

#include <cassert>
#include <cstring>

#include "repository/index_filter.h"

namespace blockferry {
namespace {

using namespace index_format;

constexpr size_t kAppendSize = 256 * 1024;

// REQUIRES: the place of the digest is zeroes.
void SealPage(MutableBytes page) {
  const Digest digest = Blake3Hash(page);
  std::memcpy(page.data(), digest.data(), kDigestSize);
}

}  // namespace

IndexWriter::IndexWriter(File* file, const RepositoryId& repository, const IndexFileId& id)
    : file_(file), repository_(repository), id_(id), directory_(kPageSize) {
  buffer_.reserve(kAppendSize + (kGroupPageCount + 1) * kPageSize);
  ByteWriter out(&buffer_);
  out.PutZeroes(kDigestSize);
  out.PutBytes(BytesOf(kMagic));
  out.Put(kVersion);
  out.Put(uint32_t{0});
  out.PutBytes(repository_);
  out.PutBytes(id_);
  out.PutZeroes(kPageSize - buffer_.size());
  SealPage(buffer_);
}

Status IndexWriter::Append() {
  RETURN_IF_ERROR(file_->Append(buffer_));
  buffer_.clear();
  return {};
}

void IndexWriter::BeginPage() { buffer_.resize(buffer_.size() + kPageHeaderSize); }

void IndexWriter::EndPage(uint16_t kind, size_t entry_count) {
  buffer_.resize((buffer_.size() + kPageSize - 1) / kPageSize * kPageSize);
  const MutableBytes page = MutableBytes(buffer_).last(kPageSize);
  std::byte* at = page.data() + kDigestSize;
  std::memcpy(at, id_.data(), kFileIdSize);
  StoreLe(at + kFileIdSize, page_count_);
  StoreLe(at + kFileIdSize + 4, static_cast<uint16_t>(entry_count));
  StoreLe(at + kFileIdSize + 6, kind);
  SealPage(page);
  ++page_count_;
}

Status IndexWriter::EndGroup() {
  BeginPage();
  const Bytes content = Bytes(directory_).subspan(kPageHeaderSize);
  buffer_.insert(buffer_.end(), content.begin(), content.end());
  EndPage(kDirectoryPage, group_page_count_);
  directory_.assign(kPageSize, std::byte{0});
  group_page_count_ = 0;
  return buffer_.size() >= kAppendSize ? Append() : Status();
}

Status IndexWriter::Add(const IndexEntry& entry) {
  if (page_entry_count_ == 0) {
    if (group_page_count_ == 0) fences_.push_back(entry.key.fence());
    StoreLe(directory_.data() + kPageHeaderSize + group_page_count_ * kFenceSize,
            entry.key.fence());
    BeginPage();
    ++group_page_count_;
    ++entry_page_count_;
  }
  ByteWriter out(&buffer_);
  out.Put(entry.key.low);
  out.Put(entry.key.high);
  out.Put(entry.pack);
  out.Put(entry.offset);
  out.Put(entry.stored_size | static_cast<uint32_t>(entry.type) << kTypeShift);
  index_filter::Add(entry.key, directory_.data());
  if (entry.pack >= pack_entry_counts_.size()) pack_entry_counts_.resize(entry.pack + 1);
  ++pack_entry_counts_[entry.pack];
  ++entry_count_;
  if (++page_entry_count_ < kPageEntryCount) return {};
  EndPage(kEntryPage, page_entry_count_);
  page_entry_count_ = 0;
  return group_page_count_ == kGroupPageCount ? EndGroup() : Status();
}

Status IndexWriter::Finish(std::span<const IndexPack> packs) {
  if (page_entry_count_ > 0) EndPage(kEntryPage, page_entry_count_);
  if (group_page_count_ > 0) RETURN_IF_ERROR(EndGroup());
  assert(pack_entry_counts_.size() <= packs.size());
  pack_entry_counts_.resize(packs.size());
  if (!buffer_.empty()) RETURN_IF_ERROR(Append());

  ByteWriter out(&buffer_);
  for (size_t i = 0; i < packs.size(); ++i) {
    out.PutBytes(packs[i].id);
    out.Put(packs[i].size);
    out.Put(packs[i].chunk_count);
    out.Put(pack_entry_counts_[i]);
    out.Put(uint32_t{0});
  }
  for (const uint32_t fence : fences_) out.Put(fence);
  out.Put(entry_count_);
  out.Put(entry_page_count_);
  out.Put(static_cast<uint32_t>(packs.size()));
  out.Put(kVersion);
  out.Put(uint32_t{0});
  out.PutBytes(repository_);
  out.PutBytes(id_);
  out.PutZeroes(kFooterReservedSize);
  out.PutBytes(Blake3Hash(buffer_));
  out.PutBytes(BytesOf(kFooterMagic));
  RETURN_IF_ERROR(Append());
  return file_->Sync();
}

}  // namespace blockferry
