// Disks for the repository's tests: which block holds which content, stored and read back.
#ifndef BLOCKFERRY_REPOSITORY_TEST_DISK_H_
#define BLOCKFERRY_REPOSITORY_TEST_DISK_H_

#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "repository/repository.h"

namespace blockferry {

// Block index → seed of its content; blocks that are not there are holes.
using TestDisk = std::map<uint64_t, uint32_t>;

inline ByteVector TestBlock(uint32_t seed, size_t size) {
  std::mt19937 random(seed);
  ByteVector block(size);
  for (size_t at = 0; at < size; at += 4) {
    uint32_t word = static_cast<uint32_t>(random());
    std::memcpy(block.data() + at, &word, std::min<size_t>(4, size - at));
  }
  return block;
}

// Stores blocks [from the checkpoint, end) of the disk; blocks that are equal in `base` are kept.
inline Status WriteTestDisk(DiskWriter& writer, const TestDisk& disk, uint64_t size, uint64_t end) {
  for (const auto& [index, seed] : disk) {
    if (index < writer.resumed_at() || index >= end) continue;
    ByteVector block = TestBlock(seed, BlockSizeAt(size, index));
    NewRecord record;
    record.name = writer.session().repository().naming().ChunkName(block);
    record.plain_size = static_cast<uint32_t>(block.size());
    record.stored = block;
    writer.CountRead(block.size());
    RETURN_IF_ERROR(writer.Put(index, record));
  }
  return {};
}

inline Result<std::optional<Digest>> StoreTestDisk(Session& session, const std::string& disk_id,
                                                   const TestDisk& disk, uint64_t size) {
  ASSIGN_OR_RETURN(std::unique_ptr<DiskWriter> writer,
                   session.OpenDisk(disk_id, size, std::nullopt));
  RETURN_IF_ERROR(WriteTestDisk(*writer, disk, size, BlockCountOf(size)));
  return writer->Finish();
}

// As StoreTestDisk, keeping all that is equal in the base.
inline Result<std::optional<Digest>> StoreTestDiskOver(Session& session, const std::string& disk_id,
                                                       const TestDisk& disk, const TestDisk& base,
                                                       const std::optional<Digest>& base_root,
                                                       uint64_t size) {
  ASSIGN_OR_RETURN(std::unique_ptr<DiskWriter> writer, session.OpenDisk(disk_id, size, base_root));
  MapReader reader(&session.repository(), base_root, BlockCountOf(size));
  uint64_t kept_to = writer->resumed_at();
  for (const auto& [index, seed] : disk) {
    auto before = base.find(index);
    if (before != base.end() && before->second == seed) continue;
    if (index < kept_to) continue;
    RETURN_IF_ERROR(writer->Keep(reader, kept_to, index));
    RETURN_IF_ERROR(WriteTestDisk(*writer, {{index, seed}}, size, index + 1));
    kept_to = index + 1;
  }
  RETURN_IF_ERROR(writer->Keep(reader, kept_to, BlockCountOf(size)));
  return writer->Finish();
}

// Empty when the stored disk is exactly `disk`, else what differs.
inline std::string CompareTestDisk(Repository& repository, const std::optional<Digest>& root,
                                   const TestDisk& disk, uint64_t size) {
  MapReader reader(&repository, root, BlockCountOf(size));
  uint64_t at = 0;
  for (const auto& [index, seed] : disk) {
    Result<std::optional<MapEntry>> entry = reader.Next(at);
    if (!entry.ok()) return entry.status().message();
    if (!*entry || (*entry)->index != index) return "block " + std::to_string(index) + " is absent";
    ByteVector plain(BlockSizeAt(size, index));
    Status read = repository.ReadChunk((*entry)->name, plain, Proof::kPlainAndStored, nullptr);
    if (!read.ok()) return read.message();
    if (plain != TestBlock(seed, plain.size()))
      return "block " + std::to_string(index) + " differs";
    at = index + 1;
  }
  Result<std::optional<MapEntry>> entry = reader.Next(at);
  if (!entry.ok()) return entry.status().message();
  return *entry ? "block " + std::to_string((*entry)->index) + " should be a hole" : "";
}

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_TEST_DISK_H_
