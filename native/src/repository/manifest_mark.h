// Marks beside a manifest, told by their names alone:
//
//   <sequence>-<backup id>.held                  nobody removes the backup
//   <sequence>-<backup id>.<time>.removed        removed at that repository time, 16 hex digits
//   <sequence>-<backup id>.<time>.dropped        its undo window is over: it goes for good
//
// A removed backup is undeleted by removing its mark and dropped by renaming it: one of the two
// wins, and neither meets a mark that was made later.
#ifndef BLOCKFERRY_REPOSITORY_MANIFEST_MARK_H_
#define BLOCKFERRY_REPOSITORY_MANIFEST_MARK_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace blockferry {

struct ManifestMark {
  enum class Kind { kHeld, kRemoved, kDropped };
  std::string stem;  // The manifest's name, or path, without its suffix.
  Kind kind = Kind::kHeld;
  uint64_t time = 0;  // Of a kHeld: 0.
};

// Without value for any other file.
std::optional<ManifestMark> ParseManifestMark(std::string_view name);
std::string NameOf(const ManifestMark& mark);

// What a mark of the manifest has as its stem.
std::string StemOf(std::string_view manifest_name);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MANIFEST_MARK_H_
