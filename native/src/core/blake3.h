// BLAKE3, written from the specification: plain, keyed and key-deriving hash, with extendable
// output. Whole chunks are hashed side by side, as many as the processor has lanes for
// (blake3_kernel.h), so long inputs should come in one Update.
#ifndef BLOCKFERRY_CORE_BLAKE3_H_
#define BLOCKFERRY_CORE_BLAKE3_H_

#include <array>
#include <cstdint>
#include <string_view>

#include "core/bytes.h"

namespace blockferry {

using Digest = std::array<std::byte, 32>;

class Blake3 {
 public:
  static constexpr size_t kBlockSize = 64;
  static constexpr size_t kChunkSize = 1024;

  Blake3();
  static Blake3 Keyed(const Digest& key);
  // For one purpose, named by a hard-coded context; the input is the key material.
  static Blake3 DeriveKey(std::string_view context);

  void Update(Bytes input);
  // Fills `out`, of any length. The object may be updated further and finished again.
  void Finish(MutableBytes out) const;
  Digest Finish() const;

 private:
  using Words = std::array<uint32_t, 8>;
  Blake3(const Words& key, uint32_t flags);
  void CompressChunkBlock();
  void PushChunk(const Words& chaining_value, uint64_t chunk_count);
  size_t HashWholeChunks(Bytes input);

  // 2^54 chunks are 2^64 bytes: the stack of subtrees that wait for their sibling is never deeper.
  static constexpr size_t kStackDepthMax = 54;

  Words key_;
  uint32_t flags_;
  Words chunk_value_;
  uint64_t chunk_index_ = 0;
  std::array<std::byte, kBlockSize> block_{};
  uint32_t block_size_ = 0;
  uint32_t blocks_compressed_ = 0;
  std::array<Words, kStackDepthMax> stack_;
  size_t stack_depth_ = 0;
};

Digest Blake3Hash(Bytes input);
Digest Blake3KeyedHash(const Digest& key, Bytes input);
Digest Blake3DeriveKey(std::string_view context, Bytes key_material);

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_BLAKE3_H_
