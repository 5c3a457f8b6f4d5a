#include "core/blake3.h"

#include <algorithm>
#include <bit>
#include <cassert>

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

constexpr Words kInitial = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                            0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

// Which message word each step of each round takes; a row is the one before it, permuted.
constexpr uint8_t kSchedule[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

// Four inputs are compressed at once, one in each lane; every instruction set has this in some way.
constexpr size_t kLanes = 4;
typedef uint32_t Lanes __attribute__((vector_size(16)));

template <typename T>
[[gnu::always_inline]] inline T RotateRight(T x, int count) {
  return (x >> count) | (x << (32 - count));
}

template <typename T>
[[gnu::always_inline]] inline void Mix(T* v, int a, int b, int c, int d, T x, T y) {
  v[a] = v[a] + v[b] + x;
  v[d] = RotateRight(v[d] ^ v[a], 16);
  v[c] = v[c] + v[d];
  v[b] = RotateRight(v[b] ^ v[c], 12);
  v[a] = v[a] + v[b] + y;
  v[d] = RotateRight(v[d] ^ v[a], 8);
  v[c] = v[c] + v[d];
  v[b] = RotateRight(v[b] ^ v[c], 7);
}

template <typename T>
[[gnu::always_inline]] inline void Rounds(T* v, const T* m) {
#pragma GCC unroll 7
  for (int round = 0; round < 7; ++round) {
    const uint8_t* s = kSchedule[round];
    Mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
    Mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
    Mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
    Mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
    Mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
    Mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
    Mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
    Mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
  }
}

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
  Rounds(v, m);
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

// Word i of the four blocks becomes m[i].
[[gnu::always_inline]] inline void LoadTransposed(const std::byte* const* blocks, Lanes* m) {
  for (int i = 0; i < 16; i += 4) {
    Lanes a, b, c, d;
    std::memcpy(&a, blocks[0] + 4 * i, 16);
    std::memcpy(&b, blocks[1] + 4 * i, 16);
    std::memcpy(&c, blocks[2] + 4 * i, 16);
    std::memcpy(&d, blocks[3] + 4 * i, 16);
    Lanes ab_low = __builtin_shuffle(a, b, Lanes{0, 4, 1, 5});
    Lanes ab_high = __builtin_shuffle(a, b, Lanes{2, 6, 3, 7});
    Lanes cd_low = __builtin_shuffle(c, d, Lanes{0, 4, 1, 5});
    Lanes cd_high = __builtin_shuffle(c, d, Lanes{2, 6, 3, 7});
    m[i] = __builtin_shuffle(ab_low, cd_low, Lanes{0, 1, 4, 5});
    m[i + 1] = __builtin_shuffle(ab_low, cd_low, Lanes{2, 3, 6, 7});
    m[i + 2] = __builtin_shuffle(ab_high, cd_high, Lanes{0, 1, 4, 5});
    m[i + 3] = __builtin_shuffle(ab_high, cd_high, Lanes{2, 3, 6, 7});
  }
}

// The chaining values of kLanes inputs of `block_count` blocks each. Input i has the counter
// counter + i * counter_step.
void HashLanes(const std::byte* const* inputs, size_t block_count, const Words& key,
               uint64_t counter, uint64_t counter_step, uint32_t flags, uint32_t first_flags,
               uint32_t last_flags, Words* out) {
  Lanes h[8];
  for (int i = 0; i < 8; ++i) h[i] = Lanes{} + key[i];
  Lanes counter_low, counter_high;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    uint64_t own = counter + lane * counter_step;
    counter_low[lane] = static_cast<uint32_t>(own);
    counter_high[lane] = static_cast<uint32_t>(own >> 32);
  }
  for (size_t block = 0; block < block_count; ++block) {
    const std::byte* blocks[kLanes];
    for (size_t lane = 0; lane < kLanes; ++lane) {
      blocks[lane] = inputs[lane] + block * Blake3::kBlockSize;
    }
    Lanes m[16];
    LoadTransposed(blocks, m);
    uint32_t block_flags =
        flags | (block == 0 ? first_flags : 0) | (block + 1 == block_count ? last_flags : 0);
    Lanes v[16] = {h[0],
                   h[1],
                   h[2],
                   h[3],
                   h[4],
                   h[5],
                   h[6],
                   h[7],
                   Lanes{} + kInitial[0],
                   Lanes{} + kInitial[1],
                   Lanes{} + kInitial[2],
                   Lanes{} + kInitial[3],
                   counter_low,
                   counter_high,
                   Lanes{} + static_cast<uint32_t>(Blake3::kBlockSize),
                   Lanes{} + block_flags};
    Rounds(v, m);
    for (int i = 0; i < 8; ++i) h[i] = v[i] ^ v[i + 8];
  }
  for (size_t lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) out[lane][i] = h[i][lane];
  }
}

void HashFourChunks(const std::byte* input, const Words& key, uint64_t counter, uint32_t flags,
                    Words* out) {
  const std::byte* inputs[kLanes];
  for (size_t lane = 0; lane < kLanes; ++lane) inputs[lane] = input + lane * Blake3::kChunkSize;
  HashLanes(inputs, Blake3::kChunkSize / Blake3::kBlockSize, key, counter, 1, flags, kChunkStart,
            kChunkEnd, out);
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

// A block of a disk and a record around it: such inputs are hashed as one, level by level, so that
// the lanes are full on all but the last few nodes of the tree.
constexpr size_t kOneShotChunksMax = 68;

Digest HashOneShot(Bytes input, const Words& key, uint32_t flags) {
  size_t count = (input.size() + Blake3::kChunkSize - 1) / Blake3::kChunkSize;
  assert(count >= 2 && count <= kOneShotChunksMax);
  Words values[kOneShotChunksMax];
  size_t index = 0;
  size_t whole_count = input.size() / Blake3::kChunkSize;
  for (; index + kLanes <= whole_count; index += kLanes) {
    HashFourChunks(input.data() + index * Blake3::kChunkSize, key, index, flags, values + index);
  }
  for (; index < count; ++index) {
    size_t at = index * Blake3::kChunkSize;
    values[index] = HashOneChunk(input.data() + at, std::min(input.size() - at, Blake3::kChunkSize),
                                 key, index, flags);
  }
  // Neighbours are paired; an odd one out goes up unchanged, which is the tree of the
  // specification.
  while (count > 2) {
    size_t pair_count = count / 2;
    size_t pair = 0;
    for (; pair + kLanes <= pair_count; pair += kLanes) {
      const std::byte* inputs[kLanes];
      for (size_t lane = 0; lane < kLanes; ++lane) {
        inputs[lane] = PairBytes(values + 2 * (pair + lane));
      }
      Words parents[kLanes];
      HashLanes(inputs, 1, key, 0, 0, flags | kParent, 0, 0, parents);
      std::copy_n(parents, kLanes, values + pair);
    }
    for (; pair < pair_count; ++pair) {
      values[pair] =
          ChainingValue(key, PairBytes(values + 2 * pair), Blake3::kBlockSize, 0, flags | kParent);
    }
    if (count % 2 != 0) values[pair_count] = values[count - 1];
    count = pair_count + count % 2;
  }
  Digest digest;
  Extend(key, PairBytes(values), Blake3::kBlockSize, flags | kParent, digest);
  return digest;
}

bool FitsOneShot(Bytes input) {
  return input.size() > Blake3::kChunkSize &&
         input.size() <= kOneShotChunksMax * Blake3::kChunkSize;
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

// Takes groups of whole chunks that are surely not the last ones; returns the bytes taken.
size_t Blake3::HashWholeChunks(Bytes input) {
  size_t taken = 0;
  while (input.size() - taken > kLanes * kChunkSize) {
    Words values[kLanes];
    HashFourChunks(input.data() + taken, key_, chunk_index_, flags_, values);
    for (const Words& value : values) PushChunk(value, ++chunk_index_);
    taken += kLanes * kChunkSize;
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
