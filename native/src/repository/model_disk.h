// Disks of blocks that differ in single pages, for the models: what is stored as patches, too.
#ifndef BLOCKFERRY_REPOSITORY_MODEL_DISK_H_
#define BLOCKFERRY_REPOSITORY_MODEL_DISK_H_

#include <map>
#include <string>

#include "repository/patch.h"
#include "repository/record.h"
#include "repository/record_seal.h"
#include "repository/test_disk.h"

namespace blockferry {

constexpr uint64_t kModelDiskSize = 70 * uint64_t{kBlockSize};  // Two levels of a map.

// Family and version of a block: versions of a family differ in one page.
struct Content {
  uint32_t family = 0;
  uint32_t version = 0;
  bool operator==(const Content&) const = default;
};
using ModelDisk = std::map<uint64_t, Content>;

inline ByteVector BytesOf(const Content& content) {
  ByteVector block = TestBlock(content.family, kBlockSize);
  if (content.version > 0) block[content.version * kPageSize] ^= std::byte{0x55};
  return block;
}

// Encrypted when the repository is.
inline Result<bool> PutSealed(DiskWriter& writer, uint64_t index, NewRecord record) {
  const Digest* record_key = writer.session().repository().record_key();
  if (record_key == nullptr) return writer.Put(index, record);
  WriterKey writer_key(*record_key);
  Sealer sealer(&writer_key);
  record.is_encrypted = true;
  ByteVector encoded(RecordSize(record));
  EncodeRecord(record, encoded, &sealer);
  record.encoded = encoded;
  return writer.Put(index, record);
}

// As a patch over `base`, a content of the same family. False when that is not there.
inline Result<bool> PutPatch(DiskWriter& writer, uint64_t index, const Content& content,
                             const Content& base) {
  const Naming& naming = writer.session().repository().naming();
  const ByteVector block = BytesOf(content);
  NewRecord record;
  record.type = RecordType::kPatch;
  record.name = naming.ChunkName(block);
  record.plain_size = kBlockSize;
  PatchHead head{naming.ChunkName(BytesOf(base)), {}};
  for (const uint32_t version : {content.version, base.version}) {
    if (version > 0) head.pages.set(version);
  }
  ByteVector patch(kPatchHeadSize + head.pages.count() * kPageSize);
  EncodePatchHead(head, MutableBytes(patch).first(kPatchHeadSize));
  GatherPages(head.pages, block, MutableBytes(patch).subspan(kPatchHeadSize));
  record.stored = patch;
  record.base = head.base;
  return PutSealed(writer, index, record);
}

// As a patch over version 0 when that is there. Whether it is one now.
inline Result<bool> PutContent(DiskWriter& writer, uint64_t index, const Content& content) {
  if (content.version > 0) {
    ASSIGN_OR_RETURN(const bool is_laid, PutPatch(writer, index, content, {content.family, 0}));
    if (is_laid) return true;
  }
  const ByteVector block = BytesOf(content);
  NewRecord record;
  record.type = RecordType::kChunk;
  record.name = writer.session().repository().naming().ChunkName(block);
  record.plain_size = kBlockSize;
  record.stored = block;
  RETURN_IF_ERROR(PutSealed(writer, index, record));
  return false;
}

// What differs from `before`, the disk of `base_root`; the rest is kept. Counts patches if it is
// to.
inline Result<std::optional<Digest>> StoreModelDisk(Session& session, const ModelDisk& disk,
                                                    const ModelDisk& before,
                                                    const std::optional<Digest>& base_root,
                                                    uint64_t* patch_count) {
  ASSIGN_OR_RETURN(const std::unique_ptr<DiskWriter> writer,
                   session.OpenDisk("d", kModelDiskSize, base_root));
  MapReader map(&session.repository(), base_root, BlockCountOf(kModelDiskSize));
  uint64_t kept_to = 0;
  for (uint64_t index = 0; index < BlockCountOf(kModelDiskSize); ++index) {
    const auto now = disk.find(index);
    const auto then = before.find(index);
    const bool has = now != disk.end();
    const bool had = then != before.end();
    if (has == had && (!has || now->second == then->second)) continue;
    RETURN_IF_ERROR(writer->Keep(map, kept_to, index));
    if (has) {
      ASSIGN_OR_RETURN(const bool is_patch, PutContent(*writer, index, now->second));
      if (is_patch && patch_count != nullptr) ++*patch_count;
    }
    kept_to = index + 1;
  }
  RETURN_IF_ERROR(writer->Keep(map, kept_to, BlockCountOf(kModelDiskSize)));
  return writer->Finish();
}

// Empty when the stored disk is exactly `disk`. `failed` says that it could not be read; otherwise
// bytes were wrong.
inline std::string CompareModelDisk(Repository& repository, const std::optional<Digest>& root,
                                    const ModelDisk& disk, bool* failed) {
  MapReader map(&repository, root, BlockCountOf(kModelDiskSize));
  *failed = true;
  uint64_t at = 0;
  for (const auto& [index, content] : disk) {
    Result<std::optional<MapEntry>> entry = map.Next(at);
    if (!entry.ok()) return entry.status().message();
    ByteVector plain(kBlockSize);
    if (!*entry || (*entry)->index != index) {
      *failed = false;
      return "block " + std::to_string(index) + " is not where it was";
    }
    // As a restore reads it: the name alone has to tell.
    const Status read = repository.ReadChunk((*entry)->name, plain, Proof::kPlain, nullptr);
    if (!read.ok()) return read.message();
    if (plain != BytesOf(content)) {
      *failed = false;
      return "block " + std::to_string(index) + " has wrong bytes";
    }
    at = index + 1;
  }
  Result<std::optional<MapEntry>> rest = map.Next(at);
  if (!rest.ok()) return rest.status().message();
  *failed = false;
  return *rest ? "there is a block too many" : "";
}

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MODEL_DISK_H_
