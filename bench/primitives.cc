// What one core does with 64 KiB blocks, apart from the rest of the line: BLAKE3 at each level that
// this processor has, the zero scan, and the codecs on the blocks of a file.
//
//   cmake --build native/build --target primitives && native/out/primitives FILE
//
// Prints one JSON line: GB/s of plain bytes, the best of several rounds, and the codecs' ratios.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

#include "compress/codec.h"
#include "core/blake3.h"
#include "core/blake3_kernel.h"
#include "core/bytes.h"
#include "repository/block_geometry.h"

namespace blockferry {
namespace {

constexpr int kRounds = 5;
constexpr size_t kSampleSizeMax = size_t{256} << 20;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// GB/s of the fastest round.
template <typename Work>
double Rate(size_t size, Work work) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const double began = Seconds();
    work();
    const double rate = static_cast<double>(size) / (Seconds() - began) / 1e9;
    if (rate > best) best = rate;
  }
  return best;
}

template <typename Visit>
void ForEachBlock(Bytes sample, Visit visit) {
  for (; sample.size() >= kBlockSize; sample = sample.subspan(kBlockSize)) {
    visit(sample.first(kBlockSize));
  }
}

// The file's blocks that are not zero.
ByteVector ReadSample(const char* path) {
  ByteVector sample;
  std::ifstream file(path, std::ios::binary);
  ByteVector block(kBlockSize);
  while (sample.size() < kSampleSizeMax &&
         file.read(reinterpret_cast<char*>(block.data()), kBlockSize)) {
    if (!IsZero(block)) sample.insert(sample.end(), block.begin(), block.end());
  }
  return sample;
}

void PrintCodec(const char* name, const Compression& compression, Bytes sample) {
  const std::unique_ptr<Encoder> encoder = NewEncoder(compression);
  size_t stored = 0;
  ByteVector out(kBlockSize);
  const double encode = Rate(sample.size(), [&] {
    stored = 0;
    ForEachBlock(sample, [&](Bytes block) { stored += encoder->Encode(block, out).bytes.size(); });
  });
  std::printf(",\"%s_encode\":%.2f,\"%s_ratio\":%.3f", name, encode, name,
              static_cast<double>(stored) / static_cast<double>(sample.size()));
}

int Main(const char* path) {
  const ByteVector sample = ReadSample(path);
  if (sample.empty()) {
    std::fprintf(stderr, "primitives: %s has no block of 64 KiB with data\n", path);
    return 1;
  }
  std::printf("{\"sample_bytes\":%zu", sample.size());
  const Digest key = Blake3Hash({});
  unsigned sum = 0;
  for (const blake3::Level level : blake3::SupportedLevels()) {
    blake3::UseLevel(level);
    const double rate = Rate(sample.size(), [&] {
      ForEachBlock(sample, [&](Bytes block) {
        sum += std::to_integer<unsigned>(Blake3KeyedHash(key, block)[0]);
      });
    });
    std::printf(",\"blake3_%s\":%.2f", blake3::NameOf(level), rate);
  }
  const ByteVector zeroes(kBlockSize);
  const double zero = Rate(sample.size(), [&] {
    for (size_t at = 0; at < sample.size(); at += kBlockSize) sum += IsZero(zeroes);
  });
  std::printf(",\"zero_scan\":%.2f", zero);
  PrintCodec("lz4", {Codec::kLz4}, sample);
  for (const int level : {1, 3, 9}) {
    PrintCodec(("zstd" + std::to_string(level)).c_str(), {Codec::kZstd, level}, sample);
  }
  std::printf(",\"checksum\":%u}\n", sum);
  return 0;
}

}  // namespace
}  // namespace blockferry

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: primitives FILE\n");
    return 2;
  }
  return blockferry::Main(argv[1]);
}
