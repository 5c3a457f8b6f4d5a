// Which records of which packs are still needed? Everything that a root leads to, each node walked
// once, and the base of every patch that lies in any pack.
//
// The tables of the packs are asked, not the index: this is what deletion rests on. Names are
// marked in a set of bounded size, in several passes if they are too many for one.
#ifndef BLOCKFERRY_REPOSITORY_MARK_H_
#define BLOCKFERRY_REPOSITORY_MARK_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "repository/map_node.h"
#include "repository/pack_file_name.h"
#include "repository/pack_reader.h"

namespace blockferry {

struct MarkedPack {
  PackId id{};
  std::optional<PackFileName> tombstone;
  bool is_new = false;  // For the caller.
  std::string writer;
  uint64_t size = 0;         // Of the file.
  std::vector<bool> live;    // For each entry of its table.
  uint64_t record_size = 0;  // Bytes of all records,
  uint64_t live_size = 0;    // and of those that are live.
  // Of a pack with a tombstone: it holds a live record of which no pack without one has another. A
  // patch is none of a whole chunk: it cannot be a base.
  bool has_last_copy = false;

  bool is_live() const { return live_size > 0; }
};

struct MarkRoot {
  Digest root{};
  unsigned level_count = 0;
  std::string what;  // For the message when it cannot be walked.
};

struct MarkOptions {
  std::vector<MarkRoot> roots;
  size_t memory = 0;  // Bytes for the set of names.
  // Upper bound of the distinct names.
  uint64_t name_count = 0;
  // Gets the bytes of the packs whose records were looked at.
  Counter* looked_at = nullptr;
};

// Fills in what lies in `packs`, of which the id, tombstone and is_new are given.
// COLLECTION_BLOCKED when a map cannot be walked to its end, or a pack's table cannot be read:
// nobody knows the bases of its patches. `read_table` answers NOT_FOUND for a pack that is gone.
Status MarkPacks(const MarkOptions& options, MapNodeSource* nodes,
                 const std::function<Result<PackTable>(const PackId&)>& read_table,
                 const Cancel* cancel, std::vector<MarkedPack>* packs);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MARK_H_
