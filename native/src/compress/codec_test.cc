#include "compress/codec.h"

#include <gtest/gtest.h>

#include <random>

namespace blockferry {
namespace {

ByteVector RandomBytes(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  ByteVector bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

ByteVector TextBytes(size_t size) {
  static constexpr std::string_view kLine = "the same line over and over, number ";
  ByteVector bytes;
  for (unsigned line = 0; bytes.size() < size; ++line) {
    for (const char c : std::string(kLine) + std::to_string(line)) {
      bytes.push_back(static_cast<std::byte>(c));
    }
  }
  bytes.resize(size);
  return bytes;
}

constexpr Compression kCompressions[] = {
    {Codec::kStored}, {Codec::kLz4}, {Codec::kZstd, 1}, {Codec::kZstd, 3}, {Codec::kZstd, 19}};

TEST(Codec, GivesBackEveryBlockItEncoded) {
  for (const Compression& compression : kCompressions) {
    const std::unique_ptr<Encoder> encoder = NewEncoder(compression);
    for (const size_t size : {1u, 31u, 32u, 512u, 4096u, 65536u}) {
      for (const ByteVector& plain : {TextBytes(size), RandomBytes(size, 1)}) {
        ByteVector out(size);
        const EncodedBlock encoded = encoder->Encode(plain, out);
        EXPECT_LE(encoded.bytes.size(), plain.size());
        ByteVector back(size);
        ASSERT_TRUE(Decode(encoded.codec, encoded.bytes, back).ok()) << size;
        EXPECT_TRUE(Equal(back, plain));
      }
    }
  }
}

TEST(Codec, StoresWhatDoesNotShrinkByOneThirtySecond) {
  // Random but for 1/64 of zeroes: it would shrink, but by too little.
  ByteVector nearly = RandomBytes(65536, 3);
  std::fill_n(nearly.begin(), 1024, std::byte{0});
  for (const Compression& compression : kCompressions) {
    const std::unique_ptr<Encoder> encoder = NewEncoder(compression);
    ByteVector out(65536);
    EXPECT_EQ(encoder->Encode(RandomBytes(65536, 2), out).codec, Codec::kStored);
    EXPECT_EQ(encoder->Encode(TextBytes(65536), out).codec, compression.codec);
    EXPECT_EQ(encoder->Encode(nearly, out).codec, Codec::kStored);
  }
}

TEST(Codec, IsSmallerAtAHigherLevel) {
  // Words of six letters in random order: there is more to find than the fast levels look for.
  ByteVector plain;
  std::mt19937 random(4);
  const ByteVector words = RandomBytes(6 * 512, 6);
  while (plain.size() < 65536) {
    const auto word = words.begin() + static_cast<ptrdiff_t>(random() % 512 * 6);
    plain.insert(plain.end(), word, word + 6);
  }
  plain.resize(65536);
  ByteVector out(65536);
  size_t before = 65536;
  for (const int level : {1, 3, 19}) {
    const size_t size = NewEncoder({Codec::kZstd, level})->Encode(plain, out).bytes.size();
    EXPECT_LT(size, before) << level;
    before = size;
  }
}

TEST(Codec, RefusesBytesThatDoNotGiveTheWholeBlock) {
  const ByteVector plain = TextBytes(65536);
  for (const Compression& compression : kCompressions) {
    ByteVector out(plain.size());
    const EncodedBlock encoded = NewEncoder(compression)->Encode(plain, out);
    ByteVector shorter(65535), longer(65537), back(65536);
    EXPECT_TRUE(Decode(encoded.codec, encoded.bytes, shorter).Is(reason::kBlockCorrupt));
    EXPECT_TRUE(Decode(encoded.codec, encoded.bytes, longer).Is(reason::kBlockCorrupt));
    const Bytes cut = encoded.bytes.first(encoded.bytes.size() - 1);
    EXPECT_TRUE(Decode(encoded.codec, cut, back).Is(reason::kBlockCorrupt));
  }
  ByteVector shorter(65535);
  EXPECT_TRUE(Decode(static_cast<Codec>(9), plain, shorter).Is(reason::kBlockCorrupt));
}

void ExpectNothingPastTheBlock(Codec codec, Bytes hostile) {
  ByteVector guarded(4096 + 16, std::byte{0xA5});
  (void)Decode(codec, hostile, MutableBytes(guarded).first(4096)).ok();
  for (size_t i = 4096; i < guarded.size(); ++i) ASSERT_EQ(guarded[i], std::byte{0xA5});
}

TEST(Codec, NeverWritesPastTheBlockForHostileBytes) {
  for (const Codec codec : {Codec::kLz4, Codec::kZstd}) {
    for (unsigned seed = 0; seed < 2000; ++seed) {
      ExpectNothingPastTheBlock(codec, RandomBytes(1 + seed % 200, seed));
    }
  }
}

TEST(Codec, NeverWritesPastTheBlockForDamagedBytes) {
  const ByteVector plain = TextBytes(8192);
  for (const Compression& compression : kCompressions) {
    ByteVector out(plain.size());
    const EncodedBlock encoded = NewEncoder(compression)->Encode(plain, out);
    std::mt19937 random(5);
    for (int round = 0; round < 1000; ++round) {
      ByteVector damaged(encoded.bytes.begin(), encoded.bytes.end());
      damaged[random() % damaged.size()] ^= static_cast<std::byte>(1 + random() % 255);
      ExpectNothingPastTheBlock(encoded.codec, damaged);
    }
  }
}

}  // namespace
}  // namespace blockferry
