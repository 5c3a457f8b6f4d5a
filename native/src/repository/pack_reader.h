// Reads packs that nobody vouches for: the table of a sealed pack, and single records.
#ifndef BLOCKFERRY_REPOSITORY_PACK_READER_H_
#define BLOCKFERRY_REPOSITORY_PACK_READER_H_

#include <vector>

#include "repository/chunk_reader.h"
#include "repository/pack_writer.h"
#include "repository/patch.h"

namespace blockferry {

struct PackTable {
  uint64_t size = 0;        // Of the file.
  uint64_t table_size = 0;  // Of the table and the footer.
  std::string writer;       // Whose pack it is, see writer_name.h.
  std::vector<PackEntry> entries;
  std::vector<Digest> bases;  // Of the patches among the entries, in their order.
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
  Proof proof = Proof::kPlain;
  const Digest* record_key = nullptr;  // Of an encrypted repository.
};

// Decodes the record into `plain` and returns the plain size. BLOCK_CORRUPT says what is wrong; the
// caller says where. Comparing the plain bytes with the name is the caller's: nothing of them is
// known to be right before. REQUIRES: request.type is not kPatch.
Result<size_t> ReadRecordAt(File& file, const RecordRequest& request, MutableBytes plain);

// A patch as it was read: the size of the block, and its pages one after the other.
struct Patch {
  size_t plain_size = 0;
  PatchHead head;
  ByteVector pages;
};

// The same for a patch. REQUIRES: request.type is kPatch.
Result<Patch> ReadPatchAt(File& file, const RecordRequest& request, size_t plain_size);

// The record of a pack's table as it lies there, to be copied; BLOCK_CORRUPT when it is not what
// was written there. `type` and sizes are compared with the entry's, the name, too.
Result<ByteVector> ReadWholeRecord(File& file, const PackEntry& entry);

// The same for bytes that were read already.
Status CheckWholeRecord(Bytes record, const PackEntry& entry);

// BLOCK_CORRUPT when the record is not what was written there. With its plain bytes known to be
// wrong it tells whether they have become so in the pack.
Status CheckStoredAt(File& file, const RecordRequest& request);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_READER_H_
