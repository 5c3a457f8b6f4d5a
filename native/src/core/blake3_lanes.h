// The inner loop of BLAKE3: several inputs are compressed at once, one in each lane of a vector.
//
// Included by one file for each instruction set, which the compiler translates for that set. All of
// it is in an unnamed namespace and calls nothing outside: were any of it shared, the linker could
// keep the copy that a small processor cannot run.
#ifndef BLOCKFERRY_CORE_BLAKE3_LANES_H_
#define BLOCKFERRY_CORE_BLAKE3_LANES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/blake3_kernel.h"

namespace blockferry::blake3 {
namespace {

template <size_t kLanes>
struct VectorOf {
  typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
  typedef uint8_t Octets __attribute__((vector_size(kLanes * 4)));
};

// Whether the instruction set moves the bytes of a vector about in one instruction.
#if defined(__SSSE3__) || defined(__ARM_NEON)
constexpr bool kMovesOctets = true;
#else
constexpr bool kMovesOctets = false;
#endif
// Whether it rotates words by itself, so that nothing need be done for it.
#if defined(__AVX512F__)
constexpr bool kRotates = true;
#else
constexpr bool kRotates = false;
#endif

// A rotation by whole bytes: byte i of a word comes from byte i + kOctets.
template <size_t kOctets, typename V, size_t... kByte>
[[gnu::always_inline]] inline V RotateOctets(V x, std::index_sequence<kByte...>) {
  using Octets = typename VectorOf<sizeof(V) / 4>::Octets;
  const Octets octets = reinterpret_cast<Octets>(x);
  return reinterpret_cast<V>(__builtin_shufflevector(
      octets, octets, static_cast<int>(kByte / 4 * 4 + (kByte + kOctets) % 4)...));
}

template <int kBits, typename V>
[[gnu::always_inline]] inline V RotateRight(V x) {
  if constexpr (kBits % 8 == 0 && kMovesOctets && !kRotates && sizeof(V) > sizeof(uint32_t)) {
    return RotateOctets<kBits / 8>(x, std::make_index_sequence<sizeof(V)>());
  } else {
    return (x >> kBits) | (x << (32 - kBits));
  }
}

template <typename T>
[[gnu::always_inline]] inline void Mix(T* v, int a, int b, int c, int d, T x, T y) {
  v[a] = v[a] + v[b] + x;
  v[d] = RotateRight<16>(v[d] ^ v[a]);
  v[c] = v[c] + v[d];
  v[b] = RotateRight<12>(v[b] ^ v[c]);
  v[a] = v[a] + v[b] + y;
  v[d] = RotateRight<8>(v[d] ^ v[a]);
  v[c] = v[c] + v[d];
  v[b] = RotateRight<7>(v[b] ^ v[c]);
}

// T is a word or a vector of words.
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

// Exchanges the squares of kStep × kStep words beside the diagonal of two rows.
template <size_t kLanes, size_t kStep, typename V, size_t... kColumn>
[[gnu::always_inline]] inline void Exchange(V* low, V* high, std::index_sequence<kColumn...>) {
  const V a = *low, b = *high;
  *low = __builtin_shufflevector(
      a, b, static_cast<int>(kColumn & kStep ? kLanes + kColumn - kStep : kColumn)...);
  *high = __builtin_shufflevector(
      a, b, static_cast<int>(kColumn & kStep ? kLanes + kColumn : kColumn + kStep)...);
}

// Turns kLanes rows of kLanes words: log2(kLanes) times, squares of twice the size.
template <size_t kLanes, size_t kStep = 1, typename V>
[[gnu::always_inline]] inline void Transpose(V* rows) {
  if constexpr (kStep < kLanes) {
#pragma GCC unroll 16
    for (size_t row = 0; row < kLanes; ++row) {
      if (row & kStep) continue;
      Exchange<kLanes, kStep>(&rows[row], &rows[row + kStep], std::make_index_sequence<kLanes>());
    }
    Transpose<kLanes, kStep * 2>(rows);
  }
}

// Word i of all inputs becomes m[i].
template <size_t kLanes, typename V>
[[gnu::always_inline]] inline void LoadTransposed(const std::byte* const* inputs, size_t offset,
                                                  V* m) {
#pragma GCC unroll 4
  for (size_t word = 0; word < 16; word += kLanes) {
#pragma GCC unroll 16
    for (size_t lane = 0; lane < kLanes; ++lane) {
      std::memcpy(&m[word + lane], inputs[lane] + offset + 4 * word, sizeof(V));
    }
    Transpose<kLanes>(m + word);
  }
}

// See HashLanes in blake3_kernel.h.
template <size_t kLanes>
void HashVectors(const std::byte* const* inputs, const LaneOptions& options, uint32_t (*out)[8]) {
  using V = typename VectorOf<kLanes>::Words;
  V h[8];
  for (int i = 0; i < 8; ++i) h[i] = V{} + options.key[i];
  V counter_low, counter_high;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const uint64_t own = options.counter + lane * options.counter_step;
    counter_low[lane] = static_cast<uint32_t>(own);
    counter_high[lane] = static_cast<uint32_t>(own >> 32);
  }
  for (size_t block = 0; block < options.block_count; ++block) {
    V m[16];
    LoadTransposed<kLanes>(inputs, block * kBlockSize, m);
    const uint32_t flags = options.flags | (block == 0 ? options.first_flags : 0) |
                           (block + 1 == options.block_count ? options.last_flags : 0);
    V v[16] = {h[0],
               h[1],
               h[2],
               h[3],
               h[4],
               h[5],
               h[6],
               h[7],
               V{} + kInitial[0],
               V{} + kInitial[1],
               V{} + kInitial[2],
               V{} + kInitial[3],
               counter_low,
               counter_high,
               V{} + static_cast<uint32_t>(kBlockSize),
               V{} + flags};
    Rounds(v, m);
    for (int i = 0; i < 8; ++i) h[i] = v[i] ^ v[i + 8];
  }
  for (size_t lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) out[lane][i] = h[i][lane];
  }
}

}  // namespace
}  // namespace blockferry::blake3

#endif  // BLOCKFERRY_CORE_BLAKE3_LANES_H_
