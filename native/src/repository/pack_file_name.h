// Names of the files in a folder of packs: a pack, and the tombstone beside one that is about to
// go.
//
//   <pack id>.pack
//   <pack id>.<batch>.dead    nothing refers to the pack
//   <pack id>.<batch>.moved   what is referred to lies in other packs as well
//
// Sorted by name, a tombstone comes before its pack.
#ifndef BLOCKFERRY_REPOSITORY_PACK_FILE_NAME_H_
#define BLOCKFERRY_REPOSITORY_PACK_FILE_NAME_H_

#include <optional>
#include <string>
#include <string_view>

#include "repository/pack_writer.h"

namespace blockferry {

struct PackFileName {
  enum class Kind { kPack, kDead, kMoved };
  PackId id{};
  Kind kind = Kind::kPack;
  std::string batch;  // Of a tombstone: the 16 hex digits of those that were published together.
};

// Without value for any other file.
std::optional<PackFileName> ParsePackFileName(std::string_view name);

// REQUIRES: name.kind is a tombstone's.
std::string TombstoneName(const PackFileName& name);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_FILE_NAME_H_
