// Where stored chunks come back from. Repository is one; tests have others.
#ifndef BLOCKFERRY_REPOSITORY_CHUNK_READER_H_
#define BLOCKFERRY_REPOSITORY_CHUNK_READER_H_

#include "repository/map_node.h"

namespace blockferry {

// Called by any thread.
class ChunkReader : public MapNodeSource {
 public:
  // Fills `plain` with the chunk, decoded and compared with its name. A chunk of another size than
  // plain.size() is BLOCK_CORRUPT. `stored_size` may be null; it gets the bytes read from the pack.
  virtual Status ReadChunk(const Digest& name, MutableBytes plain, uint64_t* stored_size) = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_CHUNK_READER_H_
