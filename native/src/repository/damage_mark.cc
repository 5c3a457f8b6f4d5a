#include "repository/damage_mark.h"

#include <charconv>
#include <cstdio>

#include "repository/repository_format.h"

namespace blockferry {
namespace {

using repository_format::kDamagedSuffix;

constexpr size_t kIdDigits = 2 * sizeof(PackId);

std::string NameOf(const DamageMark& mark) {
  char offset[9];
  std::snprintf(offset, sizeof(offset), "%08x", mark.offset);
  return HexOf(mark.id) + "." + offset + kDamagedSuffix;
}

}  // namespace

std::optional<DamageMark> ParseDamageMark(std::string_view name) {
  DamageMark mark;
  if (name.size() <= kIdDigits || !ParseHex(name.substr(0, kIdDigits), mark.id)) return {};
  std::from_chars(name.data() + kIdDigits + 1, name.data() + name.size(), mark.offset, 16);
  if (name != NameOf(mark)) return {};
  return mark;
}

void SetDamageMark(FileSystem& files, const std::string& folder, const DamageMark& mark) {
  static_cast<void>(files.CreateExclusive(folder + "/" + NameOf(mark)).ok());
}

void RemoveDamageMark(FileSystem& files, const std::string& folder, const DamageMark& mark) {
  static_cast<void>(files.Remove(folder + "/" + NameOf(mark)).ok());
}

}  // namespace blockferry
