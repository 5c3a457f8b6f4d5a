#include "repository/index_file.h"

#include <algorithm>
#include <cstring>

#include "repository/index_filter.h"

namespace blockferry {
namespace {

using namespace index_format;

constexpr uint32_t kGroupStride = kGroupPageCount + 1;

uint64_t OffsetOf(uint32_t page) { return (uint64_t{page} + 1) * kPageSize; }

// The first and the last of the sorted fences behind which the key may lie. What begins with the
// key's own fence may have started one before. REQUIRES: there is a fence.
struct FenceRange {
  size_t first = 0;
  size_t last = 0;
  bool is_empty = false;
};
template <typename FenceAt>
FenceRange RangeOf(uint32_t fence, size_t count, FenceAt fence_at) {
  size_t begin = 0;  // All fences before it are less.
  for (size_t end = count; begin < end;) {
    const size_t middle = (begin + end) / 2;
    if (fence_at(middle) < fence) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  size_t last = begin;
  while (last < count && fence_at(last) == fence) ++last;
  if (last == 0) return {0, 0, true};
  return {begin == 0 ? 0 : begin - 1, last - 1, false};
}

}  // namespace

Status IndexFile::Damaged(const std::string& what) const {
  return Status(reason::kRepositoryDamaged,
                "read index file " + name_ + ": " + what +
                    "; it is only a cache, the tables of the packs are read instead",
                {{"path", name_}, {"what", what}});
}

Result<std::shared_ptr<IndexFile>> IndexFile::Open(std::unique_ptr<File> file,
                                                   const std::string& name,
                                                   const RepositoryId& repository,
                                                   DirectoryBudget* budget) {
  std::shared_ptr<IndexFile> index(new IndexFile(std::move(file), name, budget));
  RETURN_IF_ERROR(index->ReadEnd(repository));
  index->directories_ = std::make_unique<std::atomic<const std::byte*>[]>(index->group_count());
  return index;
}

IndexFile::~IndexFile() {
  if (directories_ == nullptr) return;
  for (uint32_t group = 0; group < group_count(); ++group) {
    const std::unique_ptr<const std::byte[]> page(directories_[group].load());
    if (page != nullptr) budget_->GiveBack();
  }
}

// The packs, the fences and the footer.
Status IndexFile::ReadEnd(const RepositoryId& repository) {
  ASSIGN_OR_RETURN(const uint64_t size, file_->Size());
  if (size < kPageSize + kFooterSize) return Damaged("it is too short");
  ByteVector footer(kFooterSize);
  ASSIGN_OR_RETURN(const size_t footer_size, file_->ReadAt(size - kFooterSize, footer));
  if (footer_size != kFooterSize ||
      TextOf(Bytes(footer).last(kMagicSize)) != std::string_view(kFooterMagic)) {
    return Damaged("its end is not that of an index file");
  }
  ByteReader in(footer);
  entry_count_ = in.Take<uint64_t>();
  entry_page_count_ = in.Take<uint32_t>();
  pack_count_ = in.Take<uint32_t>();
  const uint32_t version = in.Take<uint32_t>();
  if (version > kVersion) {
    return Status(reason::kRepositoryTooNew,
                  "read index file " + name_ + ": its version is " + std::to_string(version) +
                      "; it is not used",
                  {{"path", name_}, {"version", std::to_string(version)}});
  }
  static_cast<void>(in.Take<uint32_t>());
  const bool is_own = Equal(in.TakeBytes(kIdSize), repository);
  in.TakeInto(id_);
  const uint64_t group_count =
      (uint64_t{entry_page_count_} + kGroupPageCount - 1) / kGroupPageCount;
  const uint64_t end_size =
      uint64_t{pack_count_} * kPackSize + group_count * kFenceSize + kFooterSize;
  if (version != kVersion || !is_own ||
      size != (1 + entry_page_count_ + group_count) * kPageSize + end_size) {
    return Damaged(is_own ? "its size is not what its end says" : "it is of another repository");
  }
  ByteVector bytes(end_size);
  ASSIGN_OR_RETURN(const size_t read, file_->ReadAt(size - end_size, bytes));
  const Bytes digested = Bytes(bytes).first(end_size - kFooterSize + kFooterDigestedSize);
  if (read != end_size ||
      !Equal(Blake3Hash(digested), Bytes(bytes).subspan(digested.size(), sizeof(Digest)))) {
    return Damaged("its end has a wrong digest");
  }
  if (!name_.empty() && name_ != HexOf(id_) + kSuffix) return Damaged("it is another file");
  ByteReader rest(bytes);
  packs_.resize(pack_count_);
  for (IndexPack& pack : packs_) {
    rest.TakeInto(pack.id);
    pack.size = rest.Take<uint32_t>();
    pack.chunk_count = rest.Take<uint32_t>();
    static_cast<void>(rest.Take<uint64_t>());
  }
  fences_.resize(group_count);
  for (uint32_t& fence : fences_) fence = rest.Take<uint32_t>();
  return {};
}

uint32_t IndexFile::PageCountOf(uint32_t group) const {
  return std::min<uint32_t>(kGroupPageCount, entry_page_count_ - group * kGroupPageCount);
}

Result<size_t> IndexFile::CheckPage(MutableBytes page, uint32_t number, uint16_t kind,
                                    size_t count_max) const {
  std::byte told[kDigestSize];
  std::memcpy(told, page.data(), kDigestSize);
  std::memset(page.data(), 0, kDigestSize);
  const Digest digest = Blake3Hash(page);
  const bool is_whole = Equal(Bytes(digest).first(kDigestSize), told);
  ByteReader in(page.subspan(kDigestSize));
  const bool is_own = Equal(in.TakeBytes(kFileIdSize), id_);
  const uint32_t own_number = in.Take<uint32_t>();
  const size_t count = in.Take<uint16_t>();
  if (!is_whole || !is_own || own_number != number || in.Take<uint16_t>() != kind ||
      count > count_max) {
    return Damaged("page " + std::to_string(number) + " has a wrong digest");
  }
  return count;
}

Status IndexFile::ReadPage(uint32_t number, uint16_t kind, size_t count_max, MutableBytes page,
                           size_t* count) const {
  ASSIGN_OR_RETURN(const size_t size, file_->ReadAt(OffsetOf(number), page));
  if (size != kPageSize) return Damaged("it is cut off");
  ASSIGN_OR_RETURN(*count, CheckPage(page, number, kind, count_max));
  return {};
}

Status IndexFile::CheckAll() const {
  std::byte page[kPageSize];
  size_t count = 0;
  // The header page, which no lookup needs.
  ASSIGN_OR_RETURN(const size_t size, file_->ReadAt(0, page));
  std::byte told[kDigestSize];
  std::memcpy(told, page, kDigestSize);
  std::memset(page, 0, kDigestSize);
  if (size != kPageSize || !Equal(Bytes(Blake3Hash(page)).first(kDigestSize), told)) {
    return Damaged("its header has a wrong digest");
  }
  for (uint32_t group = 0; group < group_count(); ++group) {
    const uint32_t first = group * kGroupStride;
    for (uint32_t i = 0; i < PageCountOf(group); ++i) {
      RETURN_IF_ERROR(ReadPage(first + i, kEntryPage, kPageEntryCount, page, &count));
    }
    RETURN_IF_ERROR(
        ReadPage(first + PageCountOf(group), kDirectoryPage, kGroupPageCount, page, &count));
  }
  return {};
}

Result<const std::byte*> IndexFile::Directory(uint32_t group, MutableBytes buffer) const {
  std::atomic<const std::byte*>& kept = directories_[group];
  if (const std::byte* page = kept.load(std::memory_order_acquire)) return page;
  size_t count = 0;
  RETURN_IF_ERROR(ReadPage(group * kGroupStride + PageCountOf(group), kDirectoryPage,
                           kGroupPageCount, buffer, &count));
  if (count != PageCountOf(group)) return Damaged("a directory page has a wrong count");
  if (!budget_->Take()) return static_cast<const std::byte*>(buffer.data());
  auto page = std::make_unique_for_overwrite<std::byte[]>(kPageSize);
  std::memcpy(page.get(), buffer.data(), kPageSize);
  const std::byte* other = nullptr;
  if (kept.compare_exchange_strong(other, page.get())) return page.release();
  budget_->GiveBack();
  return other;
}

Status IndexFile::TakeEntry(const std::byte* at, IndexEntry* entry) const {
  entry->key = {LoadLe<uint64_t>(at), LoadLe<uint64_t>(at + 8)};
  entry->pack = LoadLe<uint32_t>(at + 16);
  entry->offset = LoadLe<uint32_t>(at + 20);
  const uint32_t size_and_type = LoadLe<uint32_t>(at + 24);
  entry->stored_size = size_and_type & kStoredSizeMask;
  entry->type = static_cast<RecordType>(size_and_type >> kTypeShift);
  return entry->pack < pack_count_ ? Status() : Damaged("an entry names a pack that cannot be");
}

Status IndexFile::FindInPage(uint32_t number, const IndexKey& key,
                             std::vector<IndexEntry>* found) const {
  std::byte page[kPageSize];
  size_t count = 0;
  RETURN_IF_ERROR(ReadPage(number, kEntryPage, kPageEntryCount, page, &count));
  const auto entry_at = [&](size_t i) { return page + kPageHeaderSize + i * kEntrySize; };
  const auto key_at = [&](size_t i) {
    return IndexKey{LoadLe<uint64_t>(entry_at(i)), LoadLe<uint64_t>(entry_at(i) + 8)};
  };
  size_t first = 0;
  for (size_t end = count; first < end;) {
    const size_t middle = (first + end) / 2;
    if (key_at(middle) < key) {
      first = middle + 1;
    } else {
      end = middle;
    }
  }
  for (; first < count && key_at(first) == key; ++first) {
    IndexEntry entry;
    RETURN_IF_ERROR(TakeEntry(entry_at(first), &entry));
    entry.pack = numbers_[entry.pack];
    found->push_back(entry);
  }
  return {};
}

Status IndexFile::FindInGroup(uint32_t group, const IndexKey& key,
                              std::vector<IndexEntry>* found) const {
  std::byte buffer[kPageSize];
  ASSIGN_OR_RETURN(const std::byte* directory, Directory(group, buffer));
  if (!index_filter::Passes(key, directory)) return {};
  const FenceRange pages = RangeOf(key.fence(), PageCountOf(group), [&](size_t page) {
    return LoadLe<uint32_t>(directory + kPageHeaderSize + page * kFenceSize);
  });
  if (pages.is_empty) return {};
  for (size_t page = pages.first; page <= pages.last; ++page) {
    RETURN_IF_ERROR(FindInPage(group * kGroupStride + static_cast<uint32_t>(page), key, found));
  }
  return {};
}

bool IndexFile::Find(const IndexKey& key, std::vector<IndexEntry>* found) const {
  if (fences_.empty()) return true;
  const FenceRange groups =
      RangeOf(key.fence(), fences_.size(), [&](size_t group) { return fences_[group]; });
  if (groups.is_empty) return true;
  for (size_t group = groups.first; group <= groups.last; ++group) {
    const Status status = FindInGroup(static_cast<uint32_t>(group), key, found);
    if (status.ok()) continue;
    health_ = status.Is(reason::kRepositoryDamaged) ? Health::kDamaged : Health::kUnreachable;
    return false;
  }
  return true;
}

Status IndexFile::ReadGroup(uint32_t group, ByteVector* buffer,
                            std::vector<IndexEntry>* entries) const {
  const uint32_t first = group * kGroupStride;
  buffer->resize(PageCountOf(group) * kPageSize);
  entries->clear();
  Result<size_t> size = file_->ReadAt(OffsetOf(first), *buffer);
  Status status = size.status();
  if (status.ok() && *size != buffer->size()) status = Damaged("it is cut off");
  for (uint32_t page = 0; status.ok() && page < PageCountOf(group); ++page) {
    const MutableBytes bytes = MutableBytes(*buffer).subspan(page * kPageSize, kPageSize);
    const Result<size_t> count = CheckPage(bytes, first + page, kEntryPage, kPageEntryCount);
    status = count.status();
    for (size_t i = 0; status.ok() && i < *count; ++i) {
      IndexEntry entry;
      status = TakeEntry(bytes.data() + kPageHeaderSize + i * kEntrySize, &entry);
      if (status.ok()) entries->push_back(entry);
    }
  }
  if (!status.ok()) {
    health_ = status.Is(reason::kRepositoryDamaged) ? Health::kDamaged : Health::kUnreachable;
  }
  return status;
}

}  // namespace blockferry
