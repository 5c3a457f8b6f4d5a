// Writes the disk map of one disk in ascending block order, with one partial node per level.
//
// Blocks that are never mentioned are holes. Used by one thread.
#ifndef BLOCKFERRY_REPOSITORY_MAP_WRITER_H_
#define BLOCKFERRY_REPOSITORY_MAP_WRITER_H_

#include <array>
#include <memory>
#include <optional>

#include "core/endian.h"
#include "repository/map_node.h"
#include "repository/map_reader.h"

namespace blockferry {

class MapWriter {
 public:
  // `sink` outlives the writer.
  MapWriter(MapNodeSink* sink, uint64_t block_count);

  // The first block that may still be put.
  uint64_t next_index() const { return next_index_; }

  // REQUIRES: next_index() <= index < block_count.
  Status Put(uint64_t index, const Digest& name);

  // Blocks [first, end) are those of `base`, a map of a disk of the same block count. Subtrees that
  // lie wholly inside are shared without being read. REQUIRES: next_index() <= first <= end <=
  // block_count.
  Status Keep(MapReader& base, uint64_t first, uint64_t end);

  // Stores what is left and returns the root, absent when no block was put. Nothing may be put
  // afterwards.
  Result<std::optional<Digest>> Finish();

  // The state between two calls, for a checkpoint. False when the bytes are no state of a map of
  // this block count; the writer is then as new.
  void Save(ByteWriter* out) const;
  bool Restore(ByteReader* in);

 private:
  Status Advance(uint64_t index);
  Status Flush(unsigned level);

  MapNodeSink* sink_;
  uint64_t block_count_;
  unsigned level_count_;
  uint64_t next_index_ = 0;
  // Node i is the one of level i on the path to the block that was put last.
  std::unique_ptr<std::array<MapNode, kMapLevelsMax>> nodes_;
  uint64_t path_index_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MAP_WRITER_H_
