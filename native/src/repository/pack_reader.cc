#include "repository/pack_reader.h"

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
  return (type == static_cast<uint8_t>(RecordType::kChunk) ||
          type == static_cast<uint8_t>(RecordType::kMapNode)) &&
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

  ByteVector footer(kFooterSize);
  ASSIGN_OR_RETURN(size_t footer_size, file->ReadAt(table.size - kFooterSize, footer));
  ByteReader in(footer);
  uint64_t table_offset = in.Take<uint64_t>();
  uint32_t entry_count = in.Take<uint32_t>();
  uint32_t version = in.Take<uint32_t>();
  bool is_own = Equal(in.TakeBytes(kIdSize), id);
  if (footer_size != kFooterSize || version != kVersion || !is_own ||
      TextOf(Bytes(footer).last(kMagicSize)) != kFooterMagic || entry_count > kEntryCountMax ||
      table_offset != table.size - kFooterSize - uint64_t{entry_count} * kEntrySize ||
      table_offset < kHeaderSize || table_offset > table.size) {
    return Damaged(path, "its end is not that of a sealed pack");
  }

  ByteVector bytes(entry_count * kEntrySize + kFooterDigestedSize);
  ASSIGN_OR_RETURN(size_t table_size, file->ReadAt(table_offset, bytes));
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
    if (!IsKnown(type, codec) || flags != 0 || !SizesFit(entry.plain_size, entry.stored_size) ||
        entry.offset < kHeaderSize ||
        uint64_t{entry.offset} + kRecordHeaderSize + entry.stored_size > table_offset) {
      return Damaged(path, "its table names a record that cannot be");
    }
    entry.type = static_cast<RecordType>(type);
    entry.codec = static_cast<Codec>(codec);
  }
  return table;
}

Result<size_t> ReadRecordAt(File& file, const RecordRequest& request, MutableBytes plain) {
  if (request.stored_size > kStoredSizeMax) return Corrupt("its size cannot be");
  size_t size = kRecordHeaderSize + request.stored_size;
  auto record = std::make_unique_for_overwrite<std::byte[]>(size);
  MutableBytes bytes(record.get(), size);
  ASSIGN_OR_RETURN(size_t read, file.ReadAt(request.offset, bytes));
  if (read != size) return Corrupt("the pack is cut off");
  Digest digest = Blake3Hash(bytes.subspan(kShortDigestSize));
  if (!Equal(Bytes(digest).first(kShortDigestSize), bytes.first(kShortDigestSize))) {
    return Corrupt("its stored bytes have a wrong digest");
  }
  ByteReader in(bytes.subspan(kShortDigestSize));
  uint8_t type = in.Take<uint8_t>();
  uint8_t codec = in.Take<uint8_t>();
  uint16_t flags = in.Take<uint16_t>();
  uint32_t plain_size = in.Take<uint32_t>();
  uint32_t stored_size = in.Take<uint32_t>();
  static_cast<void>(in.Take<uint32_t>());
  bool is_named = Equal(in.TakeBytes(kNameSize), request.name);
  if (!is_named || type != static_cast<uint8_t>(request.type)) {
    return Corrupt("it is another record");
  }
  if (!IsKnown(type, codec) || flags != 0 || !SizesFit(plain_size, stored_size) ||
      stored_size != request.stored_size) {
    return Corrupt("its header cannot be");
  }
  if (plain_size > plain.size() || (request.size_is_exact && plain_size != plain.size())) {
    return Corrupt("it holds " + std::to_string(plain_size) + " bytes, " +
                   std::to_string(plain.size()) + " are expected");
  }
  if (!Decode(static_cast<Codec>(codec), bytes.subspan(kRecordHeaderSize), plain.first(plain_size))
           .ok()) {
    return Corrupt("it cannot be decoded");
  }
  return size_t{plain_size};
}

}  // namespace blockferry
