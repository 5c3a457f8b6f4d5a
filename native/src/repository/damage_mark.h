// Beside a pack, as an empty file: the record at this offset was found to be damaged, so that every
// process stores what it held anew.
//
//   <pack id>.<offset, 8 hex digits>.damaged
//
// It is advice: without it damage is found again, and with one too many a chunk is stored twice.
#ifndef BLOCKFERRY_REPOSITORY_DAMAGE_MARK_H_
#define BLOCKFERRY_REPOSITORY_DAMAGE_MARK_H_

#include <optional>
#include <string>
#include <string_view>

#include "core/file.h"
#include "repository/pack_writer.h"

namespace blockferry {

struct DamageMark {
  PackId id{};
  uint32_t offset = 0;
};

// Without value for any other file.
std::optional<DamageMark> ParseDamageMark(std::string_view name);

// Into the folder of packs. Where nothing can be written it is left out.
void SetDamageMark(FileSystem& files, const std::string& folder, const DamageMark& mark);
void RemoveDamageMark(FileSystem& files, const std::string& folder, const DamageMark& mark);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_DAMAGE_MARK_H_
