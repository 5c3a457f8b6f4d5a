#include "core/blake3.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "core/blake3_kernel.h"
#include "core/blake3_lanes.h"
#include "core/endian.h"

namespace blockferry {
namespace {

using Words = std::array<uint32_t, 8>;

constexpr uint32_t kChunkStart = 1 << 0;
constexpr uint32_t kChunkEnd = 1 << 1;
constexpr uint32_t kParent = 1 << 2;
constexpr uint32_t kRoot = 1 << 3;
constexpr uint32_t kKeyedHash = 1 << 4;
constexpr uint32_t kDeriveKeyContext = 1 << 5;
constexpr uint32_t kDeriveKeyMaterial = 1 << 6;

constexpr Words kInitial = std::to_array(blake3::kInitial);

// A block of a disk and a record around it: such inputs are hashed as one, level by level, so that
// the lanes are full on all but the last few nodes of the tree.
constexpr size_t kChunksMax = 68;

// The narrowest kernel's.
constexpr size_t kLanesMin = 4;

// All sixteen words of the output; the first eight are the chaining value.
void Compress(const Words& value, const std::byte* block, uint32_t block_size, uint64_t counter,
              uint32_t flags, uint32_t* out) {
  uint32_t m[16];
  for (int i = 0; i < 16; ++i) m[i] = LoadLe<uint32_t>(block + 4 * i);
  uint32_t v[16] = {value[0],
                    value[1],
                    value[2],
                    value[3],
                    value[4],
                    value[5],
                    value[6],
                    value[7],
                    kInitial[0],
                    kInitial[1],
                    kInitial[2],
                    kInitial[3],
                    static_cast<uint32_t>(counter),
                    static_cast<uint32_t>(counter >> 32),
                    block_size,
                    flags};
  blake3::Rounds(v, m);
  for (int i = 0; i < 8; ++i) {
    out[i] = v[i] ^ v[i + 8];
    out[i + 8] = v[i + 8] ^ value[i];
  }
}

Words ChainingValue(const Words& value, const std::byte* block, uint32_t block_size,
                    uint64_t counter, uint32_t flags) {
  uint32_t out[16];
  Compress(value, block, block_size, counter, flags, out);
  Words result;
  std::copy_n(out, 8, result.begin());
  return result;
}

// The chaining values of `count` inputs: the widest kernel takes what fills it, and a narrower one
// the rest. Inputs that are left over fill the lanes of the narrowest one twice.
void HashMany(const std::byte* const* inputs, size_t count, blake3::LaneOptions options,
              Words* out) {
  static_assert(sizeof(Words) == sizeof(uint32_t[8]));
  for (const blake3::Kernel& kernel : blake3::Kernels()) {
    for (; count >= kernel.lanes; count -= kernel.lanes) {
      kernel.hash(inputs, options, reinterpret_cast<uint32_t(*)[8]>(out));
      inputs += kernel.lanes;
      out += kernel.lanes;
      options.counter += kernel.lanes * options.counter_step;
    }
  }
  if (count == 0) return;
  const blake3::Kernel& narrow = blake3::Kernels().back();
  assert(narrow.lanes == kLanesMin && count < kLanesMin);
  const std::byte* filled[kLanesMin];
  Words values[kLanesMin];
  for (size_t lane = 0; lane < kLanesMin; ++lane) filled[lane] = inputs[std::min(lane, count - 1)];
  narrow.hash(filled, options, reinterpret_cast<uint32_t(*)[8]>(values));
  std::copy_n(values, count, out);
}

void HashWholeChunks(const std::byte* input, size_t count, const Words& key, uint64_t counter,
                     uint32_t flags, Words* out) {
  const std::byte* inputs[kChunksMax];
  assert(count <= kChunksMax);
  for (size_t i = 0; i < count; ++i) inputs[i] = input + i * Blake3::kChunkSize;
  const size_t block_count = Blake3::kChunkSize / Blake3::kBlockSize;
  HashMany(inputs, count, {key.data(), block_count, counter, 1, flags, kChunkStart, kChunkEnd},
           out);
}

// A parent's block is its two children's chaining values; words are little-endian in memory.
const std::byte* PairBytes(const Words* children) {
  static_assert(sizeof(Words) == 32);
  return reinterpret_cast<const std::byte*>(children);
}

Words WordsOf(const Digest& digest) {
  Words words;
  for (size_t i = 0; i < words.size(); ++i) words[i] = LoadLe<uint32_t>(digest.data() + 4 * i);
  return words;
}

void Extend(const Words& value, const std::byte* block, uint32_t block_size, uint32_t flags,
            MutableBytes out) {
  for (uint64_t counter = 0; !out.empty(); ++counter) {
    uint32_t words[16];
    Compress(value, block, block_size, counter, flags | kRoot, words);
    std::byte bytes[Blake3::kBlockSize];
    for (int i = 0; i < 16; ++i) StoreLe(bytes + 4 * i, words[i]);
    size_t size = std::min(out.size(), sizeof(bytes));
    std::memcpy(out.data(), bytes, size);
    out = out.subspan(size);
  }
}

Words HashOneChunk(const std::byte* input, size_t size, const Words& key, uint64_t counter,
                   uint32_t flags) {
  Words value = key;
  for (size_t at = 0; at < size; at += Blake3::kBlockSize) {
    std::byte block[Blake3::kBlockSize] = {};
    size_t block_size = std::min(size - at, Blake3::kBlockSize);
    std::memcpy(block, input + at, block_size);
    uint32_t block_flags =
        flags | (at == 0 ? kChunkStart : 0) | (at + block_size == size ? kChunkEnd : 0);
    value = ChainingValue(value, block, static_cast<uint32_t>(block_size), counter, block_flags);
  }
  return value;
}

Digest HashOneShot(Bytes input, const Words& key, uint32_t flags) {
  size_t count = (input.size() + Blake3::kChunkSize - 1) / Blake3::kChunkSize;
  assert(count >= 2 && count <= kChunksMax);
  Words values[kChunksMax];
  const size_t whole_count = input.size() / Blake3::kChunkSize;
  HashWholeChunks(input.data(), whole_count, key, 0, flags, values);
  if (whole_count < count) {
    const Bytes rest = input.subspan(whole_count * Blake3::kChunkSize);
    values[whole_count] = HashOneChunk(rest.data(), rest.size(), key, whole_count, flags);
  }
  // Neighbours are paired; an odd one out goes up unchanged, which is the tree of the
  // specification.
  while (count > 2) {
    const size_t pair_count = count / 2;
    const std::byte* pairs[kChunksMax / 2];
    Words parents[kChunksMax / 2];
    for (size_t pair = 0; pair < pair_count; ++pair) pairs[pair] = PairBytes(values + 2 * pair);
    HashMany(pairs, pair_count, {key.data(), 1, 0, 0, flags | kParent, 0, 0}, parents);
    std::copy_n(parents, pair_count, values);
    if (count % 2 != 0) values[pair_count] = values[count - 1];
    count = pair_count + count % 2;
  }
  Digest digest;
  Extend(key, PairBytes(values), Blake3::kBlockSize, flags | kParent, digest);
  return digest;
}

bool FitsOneShot(Bytes input) {
  return input.size() > Blake3::kChunkSize && input.size() <= kChunksMax * Blake3::kChunkSize;
}

}  // namespace

Blake3::Blake3(const Words& key, uint32_t flags) : key_(key), flags_(flags), chunk_value_(key) {}

Blake3::Blake3() : Blake3(kInitial, 0) {}

Blake3 Blake3::Keyed(const Digest& key) { return Blake3(WordsOf(key), kKeyedHash); }

Blake3 Blake3::DeriveKey(std::string_view context) {
  Blake3 hash(kInitial, kDeriveKeyContext);
  hash.Update(BytesOf(context));
  return Blake3(WordsOf(hash.Finish()), kDeriveKeyMaterial);
}

void Blake3::CompressChunkBlock() {
  uint32_t flags = flags_ | (blocks_compressed_ == 0 ? kChunkStart : 0);
  chunk_value_ = ChainingValue(chunk_value_, block_.data(), kBlockSize, chunk_index_, flags);
  ++blocks_compressed_;
  block_size_ = 0;
}

// `chunk_count` chunks are done with this one. Every subtree that is complete with it is closed:
// as many as chunk_count has trailing zero bits.
void Blake3::PushChunk(const Words& chaining_value, uint64_t chunk_count) {
  Words value = chaining_value;
  for (; chunk_count % 2 == 0; chunk_count /= 2) {
    Words pair[2] = {stack_[--stack_depth_], value};
    value = ChainingValue(key_, PairBytes(pair), kBlockSize, 0, flags_ | kParent);
  }
  assert(stack_depth_ < kStackDepthMax);
  stack_[stack_depth_++] = value;
}

// Takes whole chunks that are surely not the last ones; returns the bytes taken.
size_t Blake3::HashWholeChunks(Bytes input) {
  size_t taken = 0;
  while (input.size() - taken > kLanesMin * kChunkSize) {
    Words values[kChunksMax];
    const size_t count = std::min((input.size() - taken - 1) / kChunkSize, kChunksMax);
    blockferry::HashWholeChunks(input.data() + taken, count, key_, chunk_index_, flags_, values);
    for (size_t i = 0; i < count; ++i) PushChunk(values[i], ++chunk_index_);
    taken += count * kChunkSize;
  }
  return taken;
}

void Blake3::Update(Bytes input) {
  while (!input.empty()) {
    // A full block or chunk is only closed when more input follows, since the last one is special.
    if (block_size_ == kBlockSize) {
      if (blocks_compressed_ + 1 < kChunkSize / kBlockSize) {
        CompressChunkBlock();
      } else {
        Words value = ChainingValue(chunk_value_, block_.data(), kBlockSize, chunk_index_,
                                    flags_ | kChunkEnd);
        PushChunk(value, ++chunk_index_);
        chunk_value_ = key_;
        blocks_compressed_ = 0;
        block_size_ = 0;
      }
    }
    if (block_size_ == 0 && blocks_compressed_ == 0) {
      input = input.subspan(HashWholeChunks(input));
    }
    size_t size = std::min(input.size(), kBlockSize - block_size_);
    std::memcpy(block_.data() + block_size_, input.data(), size);
    block_size_ += static_cast<uint32_t>(size);
    input = input.subspan(size);
  }
}

void Blake3::Finish(MutableBytes out) const {
  std::array<std::byte, kBlockSize> block{};
  std::memcpy(block.data(), block_.data(), block_size_);
  uint32_t flags = flags_ | kChunkEnd | (blocks_compressed_ == 0 ? kChunkStart : 0);
  if (stack_depth_ == 0) {
    // The only chunk is the root; its counter is 0, as is the first of the output blocks'.
    Extend(chunk_value_, block.data(), block_size_, flags, out);
    return;
  }
  Words pair[2];
  pair[1] = ChainingValue(chunk_value_, block.data(), block_size_, chunk_index_, flags);
  for (size_t depth = stack_depth_; depth > 0; --depth) {
    pair[0] = stack_[depth - 1];
    if (depth == 1) break;
    pair[1] = ChainingValue(key_, PairBytes(pair), kBlockSize, 0, flags_ | kParent);
  }
  Extend(key_, PairBytes(pair), kBlockSize, flags_ | kParent, out);
}

Digest Blake3::Finish() const {
  Digest digest;
  Finish(digest);
  return digest;
}

Digest Blake3Hash(Bytes input) {
  if (FitsOneShot(input)) return HashOneShot(input, kInitial, 0);
  Blake3 hash;
  hash.Update(input);
  return hash.Finish();
}

Digest Blake3KeyedHash(const Digest& key, Bytes input) {
  if (FitsOneShot(input)) return HashOneShot(input, WordsOf(key), kKeyedHash);
  Blake3 hash = Blake3::Keyed(key);
  hash.Update(input);
  return hash.Finish();
}

Digest Blake3DeriveKey(std::string_view context, Bytes key_material) {
  Blake3 hash = Blake3::DeriveKey(context);
  hash.Update(key_material);
  return hash.Finish();
}

}  // namespace blockferry
