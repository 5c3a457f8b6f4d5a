#include "core/blake3.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "core/blake3_kernel.h"
#include "core/blake3_vectors.h"

namespace blockferry {
namespace {

ByteVector VectorInput(size_t size) {
  ByteVector input(size);
  for (size_t i = 0; i < size; ++i) input[i] = static_cast<std::byte>(i % 251);
  return input;
}

Digest VectorKey() {
  Digest key;
  std::memcpy(key.data(), kBlake3VectorKey, key.size());
  return key;
}

// Every instruction set that this processor has passes all tests.
class Blake3Level : public testing::TestWithParam<blake3::Level> {
 protected:
  void SetUp() override { blake3::UseLevel(GetParam()); }
  void TearDown() override { blake3::UseLevel(blake3::SupportedLevels().back()); }
};

INSTANTIATE_TEST_SUITE_P(Supported, Blake3Level, testing::ValuesIn(blake3::SupportedLevels()),
                         [](const auto& info) {
                           std::string name = blake3::NameOf(info.param);
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(Blake3Level, GivesTheOfficialHashes) {
  // The empty input as the specification publishes it, independent of the table.
  EXPECT_EQ(HexOf(Blake3Hash({})),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
  for (const Blake3Vector& vector : kBlake3Vectors) {
    ByteVector input = VectorInput(vector.input_size);
    EXPECT_EQ(HexOf(Blake3Hash(input)), vector.hash) << vector.input_size;
    EXPECT_EQ(HexOf(Blake3KeyedHash(VectorKey(), input)), vector.keyed_hash) << vector.input_size;
    EXPECT_EQ(HexOf(Blake3DeriveKey(kBlake3VectorContext, input)), vector.derived_key)
        << vector.input_size;
  }
}

TEST_P(Blake3Level, ExtendsItsOutput) {
  ByteVector input = VectorInput(2049);
  Blake3 hashes[3] = {Blake3(), Blake3::Keyed(VectorKey()),
                      Blake3::DeriveKey(kBlake3VectorContext)};
  for (int i = 0; i < 3; ++i) {
    hashes[i].Update(input);
    ByteVector out(131);
    hashes[i].Finish(out);
    EXPECT_EQ(HexOf(out), kBlake3Extended[i]);
  }
}

TEST_P(Blake3Level, DoesNotCareHowTheInputIsCut) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  for (const Blake3Vector& vector : kBlake3Vectors) {
    ByteVector input = VectorInput(vector.input_size);
    for (size_t piece_max : {1u, 64u, 1000u, 1024u, 4097u, 70000u}) {
      if (vector.input_size / piece_max > 20000) continue;
      Blake3 hash;
      Bytes rest = input;
      while (!rest.empty()) {
        size_t size = std::min<size_t>(rest.size(), 1 + random() % piece_max);
        hash.Update(rest.first(size));
        rest = rest.subspan(size);
      }
      ASSERT_EQ(HexOf(hash.Finish()), vector.hash) << vector.input_size << " by " << piece_max;
    }
  }
}

TEST_P(Blake3Level, HashesEveryNumberOfChunksAsInPieces) {
  const ByteVector input = VectorInput(70 * Blake3::kChunkSize);
  for (size_t chunks = 1; chunks < 70; ++chunks) {
    for (const size_t size : {chunks * Blake3::kChunkSize - 1, chunks * Blake3::kChunkSize,
                              chunks * Blake3::kChunkSize + 1}) {
      Blake3 hash = Blake3::Keyed(VectorKey());
      for (size_t at = 0; at < size; at += 64) {
        hash.Update(Bytes(input).subspan(at, std::min<size_t>(64, size - at)));
      }
      ASSERT_EQ(hash.Finish(), Blake3KeyedHash(VectorKey(), Bytes(input).first(size))) << size;
    }
  }
}

TEST_P(Blake3Level, HashesOneShotAsInPieces) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  ByteVector input = VectorInput(80 * 1024);
  for (int i = 0; i < 300; ++i) {
    Bytes part = Bytes(input).first(random() % input.size());
    Blake3 hash = Blake3::Keyed(VectorKey());
    for (size_t at = 0; at < part.size(); at += 64) {
      hash.Update(part.subspan(at, std::min<size_t>(64, part.size() - at)));
    }
    ASSERT_EQ(HexOf(hash.Finish()), HexOf(Blake3KeyedHash(VectorKey(), part))) << part.size();
  }
}

}  // namespace
}  // namespace blockferry
