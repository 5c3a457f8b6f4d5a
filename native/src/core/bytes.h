// Views of bytes, and bytes as lower-case hex.
#ifndef BLOCKFERRY_CORE_BYTES_H_
#define BLOCKFERRY_CORE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace blockferry {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;
using ByteVector = std::vector<std::byte>;

inline Bytes BytesOf(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

inline std::string_view TextOf(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline bool Equal(Bytes a, Bytes b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

// True when every byte is zero; such blocks are holes.
bool IsZero(Bytes bytes);

std::string HexOf(Bytes bytes);

// False, with `bytes` undefined, unless `hex` is exactly two lower-case digits for each byte.
bool ParseHex(std::string_view hex, MutableBytes bytes);

// Fills `bytes` from the system's random source.
void FillRandom(MutableBytes bytes);

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_BYTES_H_
