#include "repository/writer_name.h"

#include <algorithm>

#include "core/endian.h"

namespace blockferry {

std::string Hex16(uint64_t value) {
  std::byte raw[8];
  StoreLe(raw, value);
  std::reverse(raw, raw + 8);
  return HexOf(raw);
}

bool ParseHex16(std::string_view text, uint64_t* value) {
  std::byte raw[8];
  if (text.size() != 2 * sizeof(raw) || !ParseHex(text, raw)) return false;
  std::reverse(raw, raw + 8);
  *value = LoadLe<uint64_t>(raw);
  return true;
}

std::string TokenText(const FencingToken& token) {
  return Hex16(token.incarnation) + "-" + Hex16(token.number);
}

std::string MakeWriterName(const FencingToken& token) {
  std::byte random[8];
  FillRandom(random);
  return TokenText(token) + "-" + HexOf(random);
}

std::string_view WriterOf(std::string_view file_name) {
  const bool is_whole = file_name.size() == kWriterNameSize;
  if (file_name.size() < kWriterNameSize || file_name[16] != '-' ||
      file_name[kTokenTextSize] != '-' || (!is_whole && file_name[kWriterNameSize] != '.')) {
    return {};
  }
  return file_name.substr(0, kWriterNameSize);
}

}  // namespace blockferry
