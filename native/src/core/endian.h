// Everything on disk is little-endian and goes through here; structs are never cast to bytes.
#ifndef BLOCKFERRY_CORE_ENDIAN_H_
#define BLOCKFERRY_CORE_ENDIAN_H_

#include <bit>
#include <cassert>
#include <cstring>

#include "core/bytes.h"

namespace blockferry {

static_assert(std::endian::native == std::endian::little,
              "LoadLe and StoreLe copy; a big-endian machine needs a byte swap here");

template <typename T>
T LoadLe(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
void StoreLe(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

// Appends fields to a growing vector.
class ByteWriter {
 public:
  explicit ByteWriter(ByteVector* out) : out_(out) {}

  template <typename T>
  void Put(T value) {
    std::byte raw[sizeof(T)];
    StoreLe(raw, value);
    PutBytes(raw);
  }
  void PutBytes(Bytes bytes) { out_->insert(out_->end(), bytes.begin(), bytes.end()); }
  void PutZeroes(size_t count) { out_->resize(out_->size() + count); }
  // A u16 length and the text. REQUIRES: text.size() < 65536.
  void PutText(std::string_view text) {
    assert(text.size() < 65536);
    Put(static_cast<uint16_t>(text.size()));
    PutBytes(BytesOf(text));
  }

 private:
  ByteVector* out_;
};

// Takes fields from bytes that nobody vouches for: reading past the end gives zeroes and makes
// ok() false for good, so that one check after several fields is enough.
class ByteReader {
 public:
  explicit ByteReader(Bytes bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  size_t remaining() const { return rest_.size(); }

  template <typename T>
  T Take() {
    Bytes raw = TakeBytes(sizeof(T));
    return raw.size() == sizeof(T) ? LoadLe<T>(raw.data()) : T{};
  }
  // Empty and not ok when fewer than `count` bytes are left.
  Bytes TakeBytes(size_t count) {
    if (count > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    Bytes taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  // A text written by PutText that is at most `size_max` bytes long.
  std::string TakeText(size_t size_max) {
    size_t size = Take<uint16_t>();
    if (size > size_max) {
      ok_ = false;
      return {};
    }
    return std::string(TextOf(TakeBytes(size)));
  }
  bool TakeInto(MutableBytes to) {
    Bytes from = TakeBytes(to.size());
    if (from.size() != to.size()) return false;
    std::memcpy(to.data(), from.data(), to.size());
    return true;
  }

 private:
  Bytes rest_;
  bool ok_ = true;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_ENDIAN_H_
