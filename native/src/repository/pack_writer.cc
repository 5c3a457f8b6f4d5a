#include "repository/pack_writer.h"

#include <cassert>

#include "core/endian.h"
#include "repository/pack_format.h"

namespace blockferry {
namespace {

using namespace pack_format;

constexpr size_t kSlotCount = 2 * kEntryCountMax;

size_t SlotOf(const Digest& name) { return LoadLe<uint64_t>(name.data()) % kSlotCount; }

}  // namespace

PackWriter::PackWriter(FileSystem& files, std::string path, std::unique_ptr<File> file,
                       const PackId& id, uint64_t size_target)
    : files_(files),
      path_(std::move(path)),
      file_(std::move(file)),
      id_(id),
      size_target_(size_target),
      slots_(kSlotCount) {
  buffer_.reserve(kRecordHeaderSize + kStoredSizeMax);
}

Result<std::unique_ptr<PackWriter>> PackWriter::Create(FileSystem& files, const std::string& path,
                                                       const RepositoryId& repository,
                                                       const PackId& id, std::string_view writer,
                                                       uint64_t size_target) {
  assert(writer.size() <= kWriterSize && size_target <= kTargetSize);
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.CreateExclusive(path));
  std::unique_ptr<PackWriter> pack(new PackWriter(files, path, std::move(file), id, size_target));
  ByteVector header;
  ByteWriter out(&header);
  out.PutBytes(BytesOf(kHeaderMagic));
  out.Put(kVersion);
  out.Put(uint32_t{0});
  out.PutBytes(repository);
  out.PutBytes(id);
  out.PutBytes(BytesOf(writer));
  out.PutZeroes(kWriterSize - writer.size());
  Digest digest = Blake3Hash(header);
  out.PutBytes(Bytes(digest).first(kShortDigestSize));
  assert(header.size() == kHeaderSize);
  RETURN_IF_ERROR(pack->Write(header));
  return pack;
}

bool PackWriter::full() const { return size_ >= size_target_ || entries_.size() >= kEntryCountMax; }

bool PackWriter::Has(RecordTypes types, const Digest& name) const {
  for (size_t slot = SlotOf(name); slots_[slot] != 0; slot = (slot + 1) % kSlotCount) {
    const PackEntry& entry = entries_[slots_[slot] - 1];
    if (entry.name == name && types.Has(entry.type)) return true;
  }
  return false;
}

Status PackWriter::Write(Bytes bytes) {
  if (!failure_.ok()) return failure_;
  failure_ = file_->Append(bytes);
  if (failure_.ok()) size_ += bytes.size();
  return failure_;
}

Result<PackEntry> PackWriter::Append(const NewRecord& record) {
  assert(!full());
  Bytes encoded = record.encoded;
  if (encoded.empty()) {
    buffer_.resize(RecordSize(record));
    EncodeRecord(record, buffer_);
    encoded = buffer_;
  }
  assert(record.plain_size > 0 && record.plain_size <= kBlockSize);
  assert(encoded.size() == RecordSize(record));
  PackEntry entry{record.name,        record.type,
                  record.codec,       static_cast<uint32_t>(size_),
                  record.plain_size,  static_cast<uint32_t>(encoded.size() - kRecordHeaderSize),
                  record.is_encrypted};
  RETURN_IF_ERROR(Write(encoded));
  if (record.type == RecordType::kPatch) bases_.push_back(record.base);
  return entry;
}

Status PackWriter::Copy(const PackEntry& entry, Bytes record, const Digest* base) {
  assert(!full() && record.size() == kRecordHeaderSize + entry.stored_size);
  assert((base != nullptr) == (entry.type == RecordType::kPatch));
  PackEntry copy = entry;
  copy.offset = static_cast<uint32_t>(size_);
  RETURN_IF_ERROR(Write(record));
  if (base != nullptr) bases_.push_back(*base);
  Add(copy);
  return {};
}

void PackWriter::Add(const PackEntry& entry) {
  entries_.push_back(entry);
  size_t slot = SlotOf(entry.name);
  while (slots_[slot] != 0) slot = (slot + 1) % kSlotCount;
  slots_[slot] = static_cast<uint32_t>(entries_.size());
}

// The table and the footer.
ByteVector PackWriter::EncodeTable() const {
  ByteVector table;
  table.reserve(entries_.size() * kEntrySize + bases_.size() * kBaseSize + kFooterSize);
  ByteWriter out(&table);
  for (const PackEntry& entry : entries_) {
    out.PutBytes(entry.name);
    out.Put(entry.offset);
    out.Put(entry.plain_size);
    out.Put(entry.stored_size);
    out.Put(static_cast<uint8_t>(entry.type));
    out.Put(static_cast<uint8_t>(entry.codec));
    out.Put(static_cast<uint8_t>(entry.is_encrypted ? kFlagEncrypted : 0));
    out.Put(uint8_t{0});
  }
  for (const Digest& base : bases_) out.PutBytes(base);
  out.Put(size_);
  out.Put(static_cast<uint32_t>(entries_.size()));
  out.Put(kVersion);
  out.PutBytes(id_);
  Digest digest = Blake3Hash(table);
  out.PutBytes(Bytes(digest).first(kFooterDigestSize));
  out.PutBytes(BytesOf(kFooterMagic));
  return table;
}

Status PackWriter::Seal(const std::string& final_folder, const std::string& final_path) {
  RETURN_IF_ERROR(Write(EncodeTable()));
  failure_ = file_->Sync();
  RETURN_IF_ERROR(failure_);
  failure_ = files_.RenameNoReplace(path_, final_path);
  RETURN_IF_ERROR(failure_);
  failure_ = files_.SyncFolder(final_folder);
  return failure_;
}

}  // namespace blockferry
