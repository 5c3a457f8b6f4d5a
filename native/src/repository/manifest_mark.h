// Marks beside a manifest, told by their names alone; id and time are 16 hex digits each:
//
//   <sequence>-<backup id>.<id>.held               nobody removes the backup
//   <sequence>-<backup id>.<id>.<time>.removed     removed, at that repository time
//   <sequence>-<backup id>.<id>.<time>.expiring    a collector saw that; its undo window runs
//                                                  from that time on
//   <sequence>-<backup id>.<id>.<time>.dropped     its undo window is over: it goes for good
//
// The id is drawn anew for each mark and stays when it is renamed: whoever saw a mark changes that
// one or none, never one that was made later. A removed backup is undeleted by removing its mark
// and dropped by renaming it: one of the two wins.
#ifndef BLOCKFERRY_REPOSITORY_MANIFEST_MARK_H_
#define BLOCKFERRY_REPOSITORY_MANIFEST_MARK_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace blockferry {

struct ManifestMark {
  enum class Kind { kHeld, kRemoved, kExpiring, kDropped };
  std::string stem;  // The manifest's name, or path, without its suffix.
  Kind kind = Kind::kHeld;
  uint64_t id = 0;
  uint64_t time = 0;  // Of a kHeld: 0.

  // Whether it says that the backup was removed and can be undeleted.
  bool is_removal() const { return kind == Kind::kRemoved || kind == Kind::kExpiring; }
};

// Without value for any other file.
std::optional<ManifestMark> ParseManifestMark(std::string_view name);
std::string NameOf(const ManifestMark& mark);

// What a mark of the manifest has as its stem.
std::string StemOf(std::string_view manifest_name);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MANIFEST_MARK_H_
