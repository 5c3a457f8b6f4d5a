#include "repository/manifest_mark.h"

#include "core/endian.h"
#include "repository/repository_format.h"
#include "repository/writer_name.h"

namespace blockferry {

using namespace repository_format;

std::optional<ManifestMark> ParseManifestMark(std::string_view name) {
  ManifestMark mark;
  if (name.ends_with(kHeldSuffix)) {
    mark.stem = name.substr(0, name.size() - std::string_view(kHeldSuffix).size());
    return mark;
  }
  if (!name.ends_with(kRemovedSuffix) && !name.ends_with(kDroppedSuffix)) return std::nullopt;
  const bool is_removed = name.ends_with(kRemovedSuffix);
  mark.kind = is_removed ? ManifestMark::Kind::kRemoved : ManifestMark::Kind::kDropped;
  name.remove_suffix(std::string_view(is_removed ? kRemovedSuffix : kDroppedSuffix).size());
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || !ParseHex16(name.substr(dot + 1), &mark.time)) {
    return std::nullopt;
  }
  mark.stem = name.substr(0, dot);
  return mark;
}

std::string NameOf(const ManifestMark& mark) {
  if (mark.kind == ManifestMark::Kind::kHeld) return mark.stem + kHeldSuffix;
  return mark.stem + "." + Hex16(mark.time) +
         (mark.kind == ManifestMark::Kind::kRemoved ? kRemovedSuffix : kDroppedSuffix);
}

std::string StemOf(std::string_view manifest_name) {
  return std::string(
      manifest_name.substr(0, manifest_name.size() - std::string_view(kManifestSuffix).size()));
}

}  // namespace blockferry
