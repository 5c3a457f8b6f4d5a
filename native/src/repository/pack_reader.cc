#include "repository/pack_reader.h"

#include <algorithm>
#include <cassert>

#include "compress/codec.h"
#include "core/endian.h"
#include "repository/pack_format.h"

namespace blockferry {
namespace {

using namespace pack_format;

Status Damaged(const std::string& path, const std::string& what) {
  return Status(reason::kRepositoryDamaged,
                "read the table of pack " + path + ": " + what +
                    "; what only this pack holds cannot be restored, verify the backups",
                {{"path", path}, {"what", what}});
}

Status Corrupt(std::string what) { return Status(reason::kBlockCorrupt, std::move(what)); }

bool IsKnown(uint8_t type, uint8_t codec) {
  return type >= static_cast<uint8_t>(RecordType::kChunk) &&
         type <= static_cast<uint8_t>(RecordType::kPatch) &&
         codec <= static_cast<uint8_t>(Codec::kZstd);
}

bool SizesFit(uint32_t plain_size, uint32_t stored_size) {
  return plain_size > 0 && plain_size <= kBlockSize && stored_size > 0 &&
         stored_size <= kStoredSizeMax;
}

Status CheckHeader(Bytes header, const std::string& path, const RepositoryId& repository,
                   const PackId& id) {
  ByteReader in(header);
  if (TextOf(in.TakeBytes(kMagicSize)) != kHeaderMagic) return Damaged(path, "it is no pack");
  if (!Equal(Bytes(Blake3Hash(header.first(kHeaderSize - kShortDigestSize))).first(16),
             header.last(kShortDigestSize))) {
    return Damaged(path, "its header has a wrong digest");
  }
  uint32_t version = in.Take<uint32_t>();
  static_cast<void>(in.Take<uint32_t>());
  if (version != kVersion) return Damaged(path, "its version is " + std::to_string(version));
  if (!Equal(in.TakeBytes(kIdSize), repository)) {
    return Damaged(path, "it belongs to another repository");
  }
  if (!Equal(in.TakeBytes(kIdSize), id)) return Damaged(path, "it is another pack");
  return {};
}

// The entries, and a base for each of them at most.
bool TableFits(uint64_t pack_size, uint64_t table_offset, uint32_t entry_count) {
  if (table_offset < kHeaderSize || table_offset > pack_size - kFooterSize) return false;
  const uint64_t size = pack_size - kFooterSize - table_offset;
  const uint64_t entries_size = uint64_t{entry_count} * kEntrySize;
  return size >= entries_size && (size - entries_size) % kBaseSize == 0 &&
         (size - entries_size) / kBaseSize <= entry_count;
}

struct StoredRecord {
  std::unique_ptr<std::byte[]> bytes;
  size_t size = 0;
  Codec codec = Codec::kStored;
  bool is_encrypted = false;
  uint32_t plain_size = 0;
  Bytes stored;
  std::unique_ptr<std::byte[]> opened;  // Where the stored bytes lie that were encrypted.
};

Status CheckDigest(const StoredRecord& record) {
  const Bytes bytes(record.bytes.get(), record.size);
  const Digest digest = Blake3Hash(bytes.subspan(kShortDigestSize));
  if (Equal(Bytes(digest).first(kShortDigestSize), bytes.first(kShortDigestSize))) return {};
  return Corrupt("its stored bytes have a wrong digest");
}

// That the bytes have changed explains everything else.
Status Explain(const StoredRecord& record, Status failure) {
  const Status changed = CheckDigest(record);
  return changed.ok() ? failure : changed;
}

Result<StoredRecord> ReadBytes(File& file, const RecordRequest& request) {
  if (request.stored_size > kStoredSizeMax) return Corrupt("its size cannot be");
  StoredRecord record;
  record.size = kRecordHeaderSize + request.stored_size;
  record.bytes = std::make_unique_for_overwrite<std::byte[]>(record.size);
  const MutableBytes bytes(record.bytes.get(), record.size);
  ASSIGN_OR_RETURN(const size_t read, file.ReadAt(request.offset, bytes));
  if (read != record.size) return Corrupt("the pack is cut off");
  return record;
}

// Takes the header's fields that fit what was asked for.
Status ReadHeader(const RecordRequest& request, size_t plain_size, StoredRecord* record) {
  const Bytes bytes(record->bytes.get(), record->size);
  ByteReader in(bytes.subspan(kShortDigestSize));
  const uint8_t type = in.Take<uint8_t>();
  const uint8_t codec = in.Take<uint8_t>();
  const uint16_t flags = in.Take<uint16_t>();
  record->plain_size = in.Take<uint32_t>();
  const uint32_t stored_size = in.Take<uint32_t>();
  static_cast<void>(in.Take<uint32_t>());
  const bool is_named = Equal(in.TakeBytes(kNameSize), request.name);
  if (!is_named || type != static_cast<uint8_t>(request.type)) {
    return Corrupt("it is another record");
  }
  if (!IsKnown(type, codec) || flags > kFlagEncrypted ||
      !SizesFit(record->plain_size, stored_size) || stored_size != request.stored_size) {
    return Corrupt("its header cannot be");
  }
  if (record->plain_size > plain_size ||
      (request.size_is_exact && record->plain_size != plain_size)) {
    return Corrupt("it holds " + std::to_string(record->plain_size) + " bytes, " +
                   std::to_string(plain_size) + " are expected");
  }
  record->codec = static_cast<Codec>(codec);
  record->is_encrypted = flags != 0;
  record->stored = bytes.subspan(kRecordHeaderSize);
  return {};
}

// Puts what was encrypted in clear behind what was not.
Status Decrypt(const RecordRequest& request, StoredRecord* record) {
  const size_t clear_size = ClearSize(request.type);
  if (request.record_key == nullptr) return Corrupt("it is encrypted, the repository is not");
  if (record->stored.size() < clear_size + kAeadTagSize) return Corrupt("it is cut off");
  const Bytes bytes(record->bytes.get(), record->size);
  Seal seal;
  const Bytes stored_seal = bytes.subspan(kRecordHeaderSize - kRecordSealSize, kSealSize);
  std::copy(stored_seal.begin(), stored_seal.end(), seal.begin());
  const size_t size = record->stored.size() - kAeadTagSize;
  record->opened = std::make_unique_for_overwrite<std::byte[]>(size);
  const MutableBytes opened(record->opened.get(), size);
  std::copy_n(record->stored.begin(), clear_size, opened.begin());
  const Bytes clear = bytes.first(kRecordHeaderSize + clear_size).subspan(kShortDigestSize);
  if (!OpenSealed(*request.record_key, seal, clear, record->stored.subspan(clear_size),
                  opened.subspan(clear_size))) {
    return Corrupt("it cannot be decrypted");
  }
  record->stored = opened;
  return {};
}

Result<StoredRecord> ReadStored(File& file, const RecordRequest& request, size_t plain_size) {
  ASSIGN_OR_RETURN(StoredRecord record, ReadBytes(file, request));
  if (request.proof == Proof::kPlainAndStored) RETURN_IF_ERROR(CheckDigest(record));
  Status read = ReadHeader(request, plain_size, &record);
  if (read.ok() && record.is_encrypted) read = Decrypt(request, &record);
  if (!read.ok()) return Explain(record, read);
  return record;
}

Status NotDecoded(const StoredRecord& record) {
  return Explain(record, Corrupt("it cannot be decoded"));
}

}  // namespace

Result<PackTable> ReadPackTable(FileSystem& files, const std::string& path,
                                const RepositoryId& repository, const PackId& id) {
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.OpenForRead(path));
  PackTable table;
  ASSIGN_OR_RETURN(table.size, file->Size());
  if (table.size < kHeaderSize + kFooterSize || table.size > kPackSizeMax) {
    return Damaged(path, "it has " + std::to_string(table.size) + " bytes");
  }
  ByteVector header(kHeaderSize);
  ASSIGN_OR_RETURN(size_t header_size, file->ReadAt(0, header));
  if (header_size != kHeaderSize) return Damaged(path, "it is cut off");
  RETURN_IF_ERROR(CheckHeader(header, path, repository, id));
  const std::string_view writer =
      TextOf(Bytes(header).subspan(kHeaderSize - kShortDigestSize - kWriterSize, kWriterSize));
  table.writer = writer.substr(0, writer.find('\0'));

  ByteVector footer(kFooterSize);
  ASSIGN_OR_RETURN(size_t footer_size, file->ReadAt(table.size - kFooterSize, footer));
  ByteReader in(footer);
  uint64_t table_offset = in.Take<uint64_t>();
  uint32_t entry_count = in.Take<uint32_t>();
  uint32_t version = in.Take<uint32_t>();
  bool is_own = Equal(in.TakeBytes(kIdSize), id);
  if (footer_size != kFooterSize || version != kVersion || !is_own ||
      TextOf(Bytes(footer).last(kMagicSize)) != kFooterMagic || entry_count > kEntryCountMax ||
      !TableFits(table.size, table_offset, entry_count)) {
    return Damaged(path, "its end is not that of a sealed pack");
  }

  ByteVector bytes(table.size - kFooterSize - table_offset + kFooterDigestedSize);
  ASSIGN_OR_RETURN(size_t table_size, file->ReadAt(table_offset, bytes));
  table.table_size = table.size - table_offset;
  Digest digest = Blake3Hash(bytes);
  if (table_size != bytes.size() ||
      !Equal(Bytes(digest).first(kFooterDigestSize),
             Bytes(footer).subspan(kFooterDigestedSize, kFooterDigestSize))) {
    return Damaged(path, "its table has a wrong digest");
  }
  ByteReader rows(bytes);
  table.entries.resize(entry_count);
  for (PackEntry& entry : table.entries) {
    rows.TakeInto(entry.name);
    entry.offset = rows.Take<uint32_t>();
    entry.plain_size = rows.Take<uint32_t>();
    entry.stored_size = rows.Take<uint32_t>();
    uint8_t type = rows.Take<uint8_t>();
    uint8_t codec = rows.Take<uint8_t>();
    uint16_t flags = rows.Take<uint16_t>();
    if (!IsKnown(type, codec) || flags > kFlagEncrypted ||
        !SizesFit(entry.plain_size, entry.stored_size) || entry.offset < kHeaderSize ||
        uint64_t{entry.offset} + kRecordHeaderSize + entry.stored_size > table_offset) {
      return Damaged(path, "its table names a record that cannot be");
    }
    entry.type = static_cast<RecordType>(type);
    entry.codec = static_cast<Codec>(codec);
    entry.is_encrypted = flags != 0;
    if (entry.type == RecordType::kPatch) table.bases.emplace_back();
  }
  for (Digest& base : table.bases) rows.TakeInto(base);
  if (!rows.ok() || rows.remaining() != kFooterDigestedSize) {
    return Damaged(path, "its table does not name a base for each patch");
  }
  return table;
}

Result<size_t> ReadRecordAt(File& file, const RecordRequest& request, MutableBytes plain) {
  assert(request.type != RecordType::kPatch);
  ASSIGN_OR_RETURN(const StoredRecord record, ReadStored(file, request, plain.size()));
  if (!Decode(record.codec, record.stored, plain.first(record.plain_size)).ok()) {
    return NotDecoded(record);
  }
  return size_t{record.plain_size};
}

Result<Patch> ReadPatchAt(File& file, const RecordRequest& request, size_t plain_size) {
  assert(request.type == RecordType::kPatch);
  ASSIGN_OR_RETURN(const StoredRecord record, ReadStored(file, request, plain_size));
  Patch patch;
  patch.plain_size = record.plain_size;
  if (!DecodePatchHead(record.stored, record.plain_size, &patch.head)) {
    return Explain(record, Corrupt("its pages cannot be"));
  }
  patch.pages.resize(SizeOfPages(patch.head.pages, record.plain_size));
  if (!Decode(record.codec, record.stored.subspan(kPatchHeadSize), patch.pages).ok()) {
    return NotDecoded(record);
  }
  return patch;
}

Result<ByteVector> ReadWholeRecord(File& file, const PackEntry& entry) {
  ByteVector bytes(kRecordHeaderSize + entry.stored_size);
  ASSIGN_OR_RETURN(const size_t read, file.ReadAt(entry.offset, bytes));
  if (read != bytes.size()) return Corrupt("the pack is cut off");
  RETURN_IF_ERROR(CheckWholeRecord(bytes, entry));
  return bytes;
}

Status CheckWholeRecord(Bytes record, const PackEntry& entry) {
  if (record.size() < kRecordHeaderSize) return Corrupt("the pack is cut off");
  const Digest digest = Blake3Hash(record.subspan(kShortDigestSize));
  if (!Equal(Bytes(digest).first(kShortDigestSize), record.first(kShortDigestSize))) {
    return Corrupt("its stored bytes have a wrong digest");
  }
  ByteReader in(record.subspan(kShortDigestSize));
  const bool is_own = in.Take<uint8_t>() == static_cast<uint8_t>(entry.type) &&
                      in.Take<uint8_t>() == static_cast<uint8_t>(entry.codec) &&
                      in.Take<uint16_t>() == (entry.is_encrypted ? kFlagEncrypted : 0) &&
                      in.Take<uint32_t>() == entry.plain_size &&
                      in.Take<uint32_t>() == entry.stored_size && in.Take<uint32_t>() == 0 &&
                      Equal(in.TakeBytes(kNameSize), entry.name);
  return is_own ? Status() : Corrupt("it is another record than the table says");
}

Status CheckStoredAt(File& file, const RecordRequest& request) {
  ASSIGN_OR_RETURN(const StoredRecord record, ReadBytes(file, request));
  return CheckDigest(record);
}

}  // namespace blockferry
