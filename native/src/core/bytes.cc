#include "core/bytes.h"

#include <cassert>

namespace blockferry {

bool IsZero(Bytes bytes) {
  // The first 16 bytes are looked at, the rest is compared with itself 16 bytes earlier: memcmp
  // runs at the speed of memory.
  constexpr size_t kHead = 16;
  for (size_t i = 0; i < bytes.size() && i < kHead; ++i) {
    if (bytes[i] != std::byte{0}) return false;
  }
  if (bytes.size() <= kHead) return true;
  return std::memcmp(bytes.data(), bytes.data() + kHead, bytes.size() - kHead) == 0;
}

std::string HexOf(Bytes bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (std::byte byte : bytes) {
    hex.push_back(kDigits[std::to_integer<unsigned>(byte) >> 4]);
    hex.push_back(kDigits[std::to_integer<unsigned>(byte) & 15]);
  }
  return hex;
}

namespace {

int DigitOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

bool ParseHex(std::string_view hex, MutableBytes bytes) {
  if (hex.size() != bytes.size() * 2) return false;
  for (size_t i = 0; i < bytes.size(); ++i) {
    int high = DigitOf(hex[2 * i]);
    int low = DigitOf(hex[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i] = static_cast<std::byte>(high * 16 + low);
  }
  return true;
}

}  // namespace blockferry
