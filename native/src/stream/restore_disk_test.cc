#include "stream/restore_disk.h"

#include <gtest/gtest.h>

#include <random>

#include "repository/block_geometry.h"
#include "repository/map_writer.h"
#include "stream/memory_chunks.h"

namespace blockferry {
namespace {

class MemoryTarget final : public DiskTarget {
 public:
  explicit MemoryTarget(uint64_t size_bytes) : content(size_bytes) {}
  Status Write(uint64_t offset_bytes, Bytes bytes) override {
    if (fail_from_bytes <= offset_bytes) return Status(reason::kTargetFull, "as the test wanted");
    // Blocks do not overlap, so that threads may write at once.
    std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(offset_bytes));
    return Status();
  }
  Status Finish() override { return Status(); }

  ByteVector content;
  uint64_t fail_from_bytes = UINT64_MAX;
};

class RestoreDiskTest : public ::testing::Test {
 protected:
  // A disk with holes and blocks that come several times.
  RestoreDiskTest() : content_(kSize) {
    std::mt19937 random(1);
    MapWriter map(&chunks_, BlockCountOf(kSize));
    for (uint64_t index = 0; index < BlockCountOf(kSize); ++index) {
      if (index % 3 == 0) continue;
      const MutableBytes block =
          MutableBytes(content_).subspan(index * kBlockSize, BlockSizeAt(kSize, index));
      const std::byte fill = static_cast<std::byte>(index % 11 == 0 ? 42 : random());
      std::fill(block.begin(), block.end(), fill);
      block[0] = std::byte{1};
      names_.push_back(chunks_.AddChunk(block));
      EXPECT_TRUE(map.Put(index, names_.back()).ok());
    }
    const Result<std::optional<Digest>> root = map.Finish();
    EXPECT_TRUE(root.ok());
    disk_ = {*root, kSize};
  }

  static constexpr uint64_t kSize = 300 * uint64_t{kBlockSize} + 512;
  MemoryChunks chunks_;
  ByteVector content_;
  std::vector<Digest> names_;
  StoredDisk disk_;
  Cancel cancel_;
  Progress progress_;
};

TEST_F(RestoreDiskTest, WritesTheSameBytes) {
  MemoryTarget target(kSize);
  ASSERT_TRUE(RestoreDisk(&chunks_, disk_, &target, &cancel_, &progress_).ok());
  EXPECT_TRUE(Equal(target.content, content_));
  EXPECT_EQ(progress_.position_bytes.value(), kSize);
  EXPECT_EQ(progress_.block_count.value(), names_.size());
  EXPECT_EQ(progress_.stored_bytes.value(), progress_.allocated_bytes.value());
}

TEST_F(RestoreDiskTest, FailsForEveryChunkThatIsMissing) {
  for (const size_t lost : {size_t{0}, names_.size() / 2, names_.size() - 1}) {
    MemoryChunks without = chunks_;
    without.Lose(names_[lost]);
    MemoryTarget target(kSize);
    Progress progress;
    EXPECT_TRUE(
        RestoreDisk(&without, disk_, &target, &cancel_, &progress).Is(reason::kChunkMissing));
  }
}

TEST_F(RestoreDiskTest, WritesNothingWhenANodeOfTheMapIsMissing) {
  chunks_.Lose(*disk_.root);
  MemoryTarget target(kSize);
  EXPECT_TRUE(
      RestoreDisk(&chunks_, disk_, &target, &cancel_, &progress_).Is(reason::kChunkMissing));
  EXPECT_TRUE(IsZero(target.content));
}

TEST_F(RestoreDiskTest, ReturnsTheFailureOfAWrite) {
  MemoryTarget target(kSize);
  target.fail_from_bytes = kSize / 2;
  EXPECT_TRUE(RestoreDisk(&chunks_, disk_, &target, &cancel_, &progress_).Is(reason::kTargetFull));
  EXPECT_LE(progress_.position_bytes.value(), kSize / 2);
}

TEST_F(RestoreDiskTest, StopsWhenCancelled) {
  cancel_.Request();
  MemoryTarget target(kSize);
  EXPECT_TRUE(RestoreDisk(&chunks_, disk_, &target, &cancel_, &progress_).Is(reason::kCancelled));
}

TEST_F(RestoreDiskTest, RestoresADiskWithoutData) {
  MemoryTarget target(kSize);
  ASSERT_TRUE(RestoreDisk(&chunks_, {{}, kSize}, &target, &cancel_, &progress_).ok());
  EXPECT_TRUE(IsZero(target.content));
  ASSERT_TRUE(RestoreDisk(&chunks_, {{}, 0}, &target, &cancel_, &progress_).ok());
}

}  // namespace
}  // namespace blockferry
