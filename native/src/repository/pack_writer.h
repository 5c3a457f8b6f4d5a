// Writes one pack under a temporary name and seals it into place.
//
// Used by one thread at a time, but Has may be called by others during Append and Seal, which leave
// the names alone; only Add changes them. After any failure the pack is poisoned: it is never
// synced again, its records have to be written anew into another pack.
#ifndef BLOCKFERRY_REPOSITORY_PACK_WRITER_H_
#define BLOCKFERRY_REPOSITORY_PACK_WRITER_H_

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "repository/manifest.h"
#include "repository/record.h"

namespace blockferry {

using PackId = std::array<std::byte, 16>;

// One line of a pack's table.
struct PackEntry {
  Digest name{};
  RecordType type = RecordType::kChunk;
  Codec codec = Codec::kStored;
  uint32_t offset = 0;  // Of the record's header in the pack.
  uint32_t plain_size = 0;
  uint32_t stored_size = 0;
  bool is_encrypted = false;
};

class PackWriter {
 public:
  // Creates the temporary file at `path` and writes the pack's header; `writer` is the prefix of
  // the session's or collector's files. It is full at `size_target` bytes. REQUIRES: size_target <=
  // pack_format::kTargetSize.
  static Result<std::unique_ptr<PackWriter>> Create(FileSystem& files, const std::string& path,
                                                    const RepositoryId& repository,
                                                    const PackId& id, std::string_view writer,
                                                    uint64_t size_target);

  const PackId& id() const { return id_; }
  uint64_t size() const { return size_; }
  const std::vector<PackEntry>& entries() const { return entries_; }
  // True when it has reached its size; the next step is Seal.
  bool full() const;
  bool Has(RecordTypes types, const Digest& name) const;

  // Writes the record; it belongs to the pack once its entry was added. REQUIRES: !full().
  Result<PackEntry> Append(const NewRecord& record);
  void Add(const PackEntry& entry);

  // A record that was read from another pack, as it lies there. REQUIRES: !full().
  Status Copy(const PackEntry& entry, Bytes record, const Digest* base);

  // Writes the table, syncs, renames to `final_path`, syncs `final_folder`. The pack is durable
  // after it. NOT_FOUND when somebody took the temporary file away.
  Status Seal(const std::string& final_folder, const std::string& final_path);

 private:
  PackWriter(FileSystem& files, std::string path, std::unique_ptr<File> file, const PackId& id,
             uint64_t size_target);
  Status Write(Bytes bytes);
  ByteVector EncodeTable() const;

  FileSystem& files_;
  std::string path_;
  std::unique_ptr<File> file_;
  PackId id_;
  uint64_t size_target_;
  uint64_t size_ = 0;
  std::vector<PackEntry> entries_;
  std::vector<Digest> bases_;  // Of the patches, in their order.
  // Open addressing by name, half full at most: the entry's position plus one, 0 when free.
  std::vector<uint32_t> slots_;
  ByteVector buffer_;
  Status failure_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_WRITER_H_
