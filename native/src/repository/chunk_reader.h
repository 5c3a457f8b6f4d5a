// Where stored chunks come back from. Repository is one; tests have others.
#ifndef BLOCKFERRY_REPOSITORY_CHUNK_READER_H_
#define BLOCKFERRY_REPOSITORY_CHUNK_READER_H_

#include "repository/map_node.h"

namespace blockferry {

// What is compared with a digest when a chunk is read: its plain bytes with the name, which proves
// them; or the stored bytes with the record's own digest as well, so that no changed byte of the
// record goes unnoticed.
enum class Proof { kPlain, kPlainAndStored };

// Called by any thread.
class ChunkReader : public MapNodeSource {
 public:
  // Fills `plain` with the chunk, decoded and compared with its name. A chunk of another size than
  // plain.size() is BLOCK_CORRUPT. `stored_size` may be null; it gets the bytes read from the pack.
  virtual Status ReadChunk(const Digest& name, MutableBytes plain, Proof proof,
                           uint64_t* stored_size) = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_CHUNK_READER_H_
