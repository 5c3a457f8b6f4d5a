#include "repository/manifest_mark.h"

#include "core/endian.h"
#include "repository/repository_format.h"
#include "repository/writer_name.h"

namespace blockferry {

using namespace repository_format;

namespace {

const char* SuffixOf(ManifestMark::Kind kind) {
  switch (kind) {
    case ManifestMark::Kind::kHeld:
      return kHeldSuffix;
    case ManifestMark::Kind::kRemoved:
      return kRemovedSuffix;
    case ManifestMark::Kind::kExpiring:
      return kExpiringSuffix;
    case ManifestMark::Kind::kDropped:
      return kDroppedSuffix;
  }
  return "";
}

// Takes ".<16 hex digits>" off the end.
bool TakeNumber(std::string_view* name, uint64_t* number) {
  const size_t dot = name->rfind('.');
  if (dot == std::string_view::npos || !ParseHex16(name->substr(dot + 1), number)) return false;
  *name = name->substr(0, dot);
  return true;
}

}  // namespace

std::optional<ManifestMark> ParseManifestMark(std::string_view name) {
  using Kind = ManifestMark::Kind;
  for (const Kind kind : {Kind::kHeld, Kind::kRemoved, Kind::kExpiring, Kind::kDropped}) {
    const std::string_view suffix = SuffixOf(kind);
    if (!name.ends_with(suffix)) continue;
    name.remove_suffix(suffix.size());
    ManifestMark mark;
    mark.kind = kind;
    if (kind != Kind::kHeld && !TakeNumber(&name, &mark.time)) return std::nullopt;
    if (!TakeNumber(&name, &mark.id)) return std::nullopt;
    mark.stem = name;
    return mark;
  }
  return std::nullopt;
}

std::string NameOf(const ManifestMark& mark) {
  const std::string start = mark.stem + "." + Hex16(mark.id);
  const bool has_time = mark.kind != ManifestMark::Kind::kHeld;
  return start + (has_time ? "." + Hex16(mark.time) : "") + SuffixOf(mark.kind);
}

std::string StemOf(std::string_view manifest_name) {
  return std::string(
      manifest_name.substr(0, manifest_name.size() - std::string_view(kManifestSuffix).size()));
}

}  // namespace blockferry
