#include "stream/verification.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "repository/block_geometry.h"
#include "repository/map_writer.h"
#include "stream/memory_chunks.h"

namespace blockferry {
namespace {

constexpr uint64_t kBlockCount = 300;
constexpr uint64_t kSize = (kBlockCount - 1) * uint64_t{kBlockSize} + 512;

// Counts reads, and fails them when a test says so.
class CountedChunks final : public ChunkReader {
 public:
  explicit CountedChunks(MemoryChunks* chunks) : chunks_(chunks) {}
  Status ReadChunk(const Digest& name, MutableBytes plain, Proof proof,
                   uint64_t* stored_size) override {
    std::lock_guard lock(mutex_);
    ++read_count;
    if (!failure.ok()) return failure;
    return chunks_->ReadChunk(name, plain, proof, stored_size);
  }
  Result<size_t> ReadNode(const Digest& name, MutableBytes buffer) override {
    ++node_count;
    return chunks_->ReadNode(name, buffer);
  }

  uint64_t read_count = 0;
  uint64_t node_count = 0;
  Status failure;

 private:
  std::mutex mutex_;
  MemoryChunks* chunks_;
};

class VerificationTest : public ::testing::Test {
 protected:
  // Two blocks of three are there, and none is like another.
  StoredDisk Store(int version) {
    MapWriter map(&memory_, kBlockCount);
    names_.clear();
    for (uint64_t index = 0; index < kBlockCount; ++index) {
      if (index % 3 == 0) continue;
      ByteVector block(BlockSizeAt(kSize, index), std::byte{7});
      block[0] = static_cast<std::byte>(index);
      block[1] = static_cast<std::byte>(index >> 8);
      // The last quarter changes with each version.
      block[2] = static_cast<std::byte>(index >= 225 ? version : 0);
      names_[index] = memory_.AddChunk(block);
      EXPECT_TRUE(map.Put(index, names_[index]).ok());
    }
    return {*map.Finish(), kSize};
  }

  Result<DamageReport> Verify(const StoredDisk& disk) {
    Progress progress;
    Result<DamageReport> report = verification_.VerifyDisk(disk, &cancel_, &progress);
    EXPECT_TRUE(!report.ok() || progress.position_bytes.value() == kSize);
    return report;
  }

  static std::vector<std::pair<uint64_t, uint64_t>> PlacesOf(const DamageReport& report) {
    std::vector<std::pair<uint64_t, uint64_t>> places;
    for (const DamagedRange& range : report.ranges) places.emplace_back(range.offset, range.size);
    return places;
  }

  MemoryChunks memory_;
  CountedChunks chunks_{&memory_};
  Verification verification_{&chunks_, 10'000};
  std::map<uint64_t, Digest> names_;
  Cancel cancel_;
};

TEST_F(VerificationTest, ProvesADisk) {
  const Result<DamageReport> report = Verify(Store(1));
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->ranges.empty());
  EXPECT_EQ(report->damaged_bytes, 0u);
  EXPECT_EQ(chunks_.read_count, names_.size());
}

TEST_F(VerificationTest, ReadsWhatTwoDisksShareOnce) {
  ASSERT_TRUE(Verify(Store(1)).ok());
  const uint64_t reads = chunks_.read_count;
  const uint64_t nodes = chunks_.node_count;
  ASSERT_TRUE(Verify(Store(2)).ok());
  EXPECT_EQ(chunks_.read_count - reads, 50u);
  EXPECT_LT(chunks_.node_count - nodes, nodes);
  const uint64_t after = chunks_.node_count;
  ASSERT_TRUE(Verify(Store(2)).ok());
  // The root and its last child cover less than they could, and are read each time.
  EXPECT_EQ(chunks_.node_count - after, 2u);
}

TEST_F(VerificationTest, NamesEveryRangeThatIsDamagedAndGoesOn) {
  const StoredDisk disk = Store(1);
  for (const uint64_t index : {1, 2, 10, 299}) memory_.Lose(names_[index]);
  const Result<DamageReport> report = Verify(disk);
  ASSERT_TRUE(report.ok());
  const uint64_t block = kBlockSize;
  EXPECT_EQ(PlacesOf(*report), (std::vector<std::pair<uint64_t, uint64_t>>{
                                   {block, 2 * block}, {10 * block, block}, {299 * block, 512}}));
  EXPECT_EQ(report->damaged_bytes, 3 * block + 512);
  EXPECT_TRUE(report->ranges[0].damage.Is(reason::kChunkMissing));
  EXPECT_EQ(chunks_.read_count, names_.size());

  // What is known to be damaged is told of the next disk, too, and not read again.
  const Result<DamageReport> next = Verify(Store(2));
  ASSERT_TRUE(next.ok());
  EXPECT_EQ(next->ranges.size(), 2u);
  EXPECT_EQ(chunks_.read_count, names_.size() + 50);
}

TEST_F(VerificationTest, CountsAllBlocksBelowANodeThatIsLost) {
  const StoredDisk disk = Store(1);
  std::array<std::byte, kMapNodeSizeMax> buffer;
  const Result<size_t> size = memory_.ReadNode(*disk.root, buffer);
  MapNode root;
  ASSERT_TRUE(DecodeMapNode(Bytes(buffer).first(*size), 5, &root));
  memory_.Lose(root.names[1]);
  memory_.Lose(root.names[4]);
  const Result<DamageReport> report = Verify(disk);
  ASSERT_TRUE(report.ok());
  const uint64_t span = 64 * uint64_t{kBlockSize};
  EXPECT_EQ(PlacesOf(*report), (std::vector<std::pair<uint64_t, uint64_t>>{
                                   {span, span}, {4 * span, kSize - 4 * span}}));
}

TEST_F(VerificationTest, EndsWhenWhatFailedIsNoDamage) {
  const StoredDisk disk = Store(1);
  chunks_.failure = Status(reason::kRepositoryUnreachable, "as the test wanted");
  EXPECT_TRUE(Verify(disk).status().Is(reason::kRepositoryUnreachable));
  chunks_.failure = Status();
  EXPECT_TRUE(Verify(disk)->ranges.empty());
  cancel_.Request();
  EXPECT_TRUE(Verify(Store(2)).status().Is(reason::kCancelled));
}

TEST_F(VerificationTest, KeepsToItsBytesInASecond) {
  const StoredDisk disk = Store(1);
  VerificationLimits limits;
  limits.bytes_per_second = 200 * uint64_t{kBlockSize};
  Verification slow(&chunks_, 10'000, limits);
  Progress progress;
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(slow.VerifyDisk(disk, &cancel_, &progress).ok());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  EXPECT_GE(took.count(), 0.95);
}

TEST_F(VerificationTest, ProvesADiskWithoutData) { EXPECT_TRUE(Verify({{}, kSize}).ok()); }

}  // namespace
}  // namespace blockferry
