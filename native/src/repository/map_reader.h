// Reads the disk map of one stored disk: one block's chunk, or all present blocks in order.
//
// It keeps one node for each level, so a walk in order reads every node once. Used by one thread;
// several readers may share a source.
#ifndef BLOCKFERRY_REPOSITORY_MAP_READER_H_
#define BLOCKFERRY_REPOSITORY_MAP_READER_H_

#include <array>
#include <memory>
#include <optional>

#include "repository/map_node.h"

namespace blockferry {

struct MapEntry {
  uint64_t index = 0;
  Digest name;
};

class MapReader {
 public:
  // `root` is absent for a disk without data. `source` outlives the reader.
  MapReader(MapNodeSource* source, const std::optional<Digest>& root, uint64_t block_count);

  uint64_t block_count() const { return block_count_; }
  unsigned level_count() const { return level_count_; }

  // The chunk of one block, absent for a hole. REQUIRES: index < block_count().
  Result<std::optional<Digest>> Find(uint64_t index);

  // The first present block at or after `index`, absent when there is none. Walk:
  //   for (at = 0; entry = Next(at); at = entry->index + 1)
  Result<std::optional<MapEntry>> Next(uint64_t index);

  // The name of the node of `level` that covers block `index`, without reading it; absent when
  // nothing is below it. For MapWriter, which shares whole subtrees.
  Result<std::optional<Digest>> NodeAt(unsigned level, uint64_t index);

 private:
  struct Level {
    MapNode node;
    Digest name{};
    bool loaded = false;
  };
  Status Load(unsigned level, uint64_t index, const Digest& name);
  unsigned ChildCount(unsigned level, uint64_t index) const;

  MapNodeSource* source_;
  std::optional<Digest> root_;
  uint64_t block_count_;
  unsigned level_count_;
  std::unique_ptr<std::array<Level, kMapLevelsMax>> levels_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MAP_READER_H_
