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

TEST(Codec, GivesBackEveryBlockItEncoded) {
  for (const Codec codec : {Codec::kStored, Codec::kLz4}) {
    const std::unique_ptr<Encoder> encoder = NewEncoder(codec);
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
  const std::unique_ptr<Encoder> encoder = NewEncoder(Codec::kLz4);
  ByteVector out(65536);
  EXPECT_EQ(encoder->Encode(RandomBytes(65536, 2), out).codec, Codec::kStored);
  EXPECT_EQ(encoder->Encode(TextBytes(65536), out).codec, Codec::kLz4);
  // Random but for 1/64 of zeroes: it would shrink, but by too little.
  ByteVector nearly = RandomBytes(65536, 3);
  std::fill_n(nearly.begin(), 1024, std::byte{0});
  EXPECT_EQ(encoder->Encode(nearly, out).codec, Codec::kStored);
}

TEST(Codec, RefusesBytesThatDoNotGiveTheWholeBlock) {
  const std::unique_ptr<Encoder> encoder = NewEncoder(Codec::kLz4);
  const ByteVector plain = TextBytes(65536);
  ByteVector out(plain.size());
  const EncodedBlock encoded = encoder->Encode(plain, out);
  ByteVector shorter(65535), longer(65537);
  EXPECT_TRUE(Decode(Codec::kLz4, encoded.bytes, shorter).Is(reason::kBlockCorrupt));
  EXPECT_TRUE(Decode(Codec::kLz4, encoded.bytes, longer).Is(reason::kBlockCorrupt));
  EXPECT_TRUE(Decode(Codec::kStored, plain, shorter).Is(reason::kBlockCorrupt));
  EXPECT_TRUE(Decode(static_cast<Codec>(9), plain, shorter).Is(reason::kBlockCorrupt));
}

TEST(Codec, NeverWritesPastTheBlockForHostileBytes) {
  for (unsigned seed = 0; seed < 2000; ++seed) {
    const ByteVector hostile = RandomBytes(1 + seed % 200, seed);
    ByteVector guarded(4096 + 16, std::byte{0xA5});
    (void)Decode(Codec::kLz4, hostile, MutableBytes(guarded).first(4096)).ok();
    for (size_t i = 4096; i < guarded.size(); ++i) ASSERT_EQ(guarded[i], std::byte{0xA5});
  }
}

}  // namespace
}  // namespace blockferry
