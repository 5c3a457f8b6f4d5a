#include "repository/pack_file_name.h"

#include "repository/repository_format.h"

namespace blockferry {
namespace {

using namespace repository_format;

constexpr size_t kIdDigits = 2 * sizeof(PackId);

bool IsBatch(std::string_view text) {
  std::byte bytes[8];
  return text.size() == 2 * sizeof(bytes) && ParseHex(text, bytes);
}

}  // namespace

std::optional<PackFileName> ParsePackFileName(std::string_view name) {
  PackFileName parsed;
  if (name.size() < kIdDigits || !ParseHex(name.substr(0, kIdDigits), parsed.id)) return {};
  name.remove_prefix(kIdDigits);
  if (name == kPackSuffix) return parsed;
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0 || !IsBatch(name.substr(1, dot - 1))) return {};
  parsed.batch = name.substr(1, dot - 1);
  const std::string_view suffix = name.substr(dot);
  if (suffix != kDeadSuffix && suffix != kMovedSuffix) return {};
  parsed.kind = suffix == kDeadSuffix ? PackFileName::Kind::kDead : PackFileName::Kind::kMoved;
  return parsed;
}

std::string TombstoneName(const PackFileName& name) {
  const char* suffix = name.kind == PackFileName::Kind::kDead ? kDeadSuffix : kMovedSuffix;
  return HexOf(name.id) + "." + name.batch + suffix;
}

}  // namespace blockferry
