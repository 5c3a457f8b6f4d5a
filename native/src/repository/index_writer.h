// Writes an index file from entries that come sorted, holding one group of pages.
#ifndef BLOCKFERRY_REPOSITORY_INDEX_WRITER_H_
#define BLOCKFERRY_REPOSITORY_INDEX_WRITER_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/file.h"
#include "repository/index_entry.h"
#include "repository/index_format.h"
#include "repository/manifest.h"
#include "repository/pack_writer.h"

namespace blockferry {

using IndexFileId = std::array<std::byte, index_format::kFileIdSize>;

// What an index file says of a pack that it covers.
struct IndexPack {
  PackId id{};
  uint32_t size = 0;
  uint32_t chunk_count = 0;
};

class IndexWriter {
 public:
  // The file is new and outlives the writer.
  IndexWriter(File* file, const RepositoryId& repository, const IndexFileId& id);

  // REQUIRES: no entry is smaller than the one before it; entry.pack is a position among `packs`.
  Status Add(const IndexEntry& entry);
  // All entries have come: writes the rest and syncs the file.
  Status Finish(std::span<const IndexPack> packs);

 private:
  void BeginPage();
  void EndPage(uint16_t kind, size_t entry_count);
  Status EndGroup();
  Status Append();

  File* file_;
  RepositoryId repository_;
  IndexFileId id_;
  ByteVector buffer_;             // What has not been appended yet; it ends with the open page.
  ByteVector directory_;          // Of the open group.
  std::vector<uint32_t> fences_;  // Of all groups.
  std::vector<uint32_t> pack_entry_counts_;
  size_t page_entry_count_ = 0;  // In the open page; 0 when there is none.
  size_t group_page_count_ = 0;  // In the open group.
  uint32_t page_count_ = 0;      // Of both kinds.
  uint32_t entry_page_count_ = 0;
  uint64_t entry_count_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_INDEX_WRITER_H_
