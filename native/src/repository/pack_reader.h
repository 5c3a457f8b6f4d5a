// Reads packs that nobody vouches for: the table of a sealed pack, and single records.
#ifndef BLOCKFERRY_REPOSITORY_PACK_READER_H_
#define BLOCKFERRY_REPOSITORY_PACK_READER_H_

#include <vector>

#include "repository/pack_writer.h"

namespace blockferry {

struct PackTable {
  uint64_t size = 0;  // Of the file.
  std::vector<PackEntry> entries;
};

// Header, footer and table of the pack at `path`. REPOSITORY_DAMAGED when they are not those of a
// whole pack of that id and repository.
Result<PackTable> ReadPackTable(FileSystem& files, const std::string& path,
                                const RepositoryId& repository, const PackId& id);

// Where one record is expected to be.
struct RecordRequest {
  RecordType type = RecordType::kChunk;
  Digest name{};
  uint32_t offset = 0;
  uint32_t stored_size = 0;
  // The plain bytes must be exactly as long as the buffer; false for map nodes.
  bool size_is_exact = true;
};

// Compares the record with the digest of its stored bytes and decodes it into `plain`; returns the
// plain size. BLOCK_CORRUPT says what is wrong; the caller says where. Comparing the plain bytes
// with the name is the caller's.
Result<size_t> ReadRecordAt(File& file, const RecordRequest& request, MutableBytes plain);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_READER_H_
