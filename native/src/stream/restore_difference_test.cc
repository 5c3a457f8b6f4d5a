#include "stream/restore_difference.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <random>
#include <string>

#include "diff/page_run.h"
#include "repository/block_geometry.h"
#include "repository/map_writer.h"
#include "source/fake_source.h"
#include "stream/memory_chunks.h"

namespace blockferry {
namespace {

// An image in memory that knows which of its pages are holes, and counts what is done to it.
class MemoryImage final : public DiskImage {
 public:
  explicit MemoryImage(ByteVector bytes) : content(std::move(bytes)) {}

  Status Write(uint64_t offset_bytes, Bytes bytes) override {
    RETURN_IF_ERROR(Count(bytes.size()));
    std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(offset_bytes));
    return Status();
  }
  Status Zero(uint64_t offset_bytes, uint64_t size_bytes) override {
    RETURN_IF_ERROR(Count(size_bytes));
    std::fill_n(content.begin() + static_cast<ptrdiff_t>(offset_bytes), size_bytes, std::byte{0});
    return Status();
  }
  Status Finish() override { return Status(); }

  // A reader of what it holds now. Pages of zeroes are holes, but those that `keeps` says.
  template <typename Keeps>
  std::unique_ptr<FakeSource> Source(Keeps keeps) const {
    std::vector<Extent> extents;
    for (uint64_t at = 0; at < content.size(); at += kPageSize) {
      const Bytes page = Bytes(content).subspan(at, std::min(kPageSize, content.size() - at));
      const bool allocated = !IsZero(page) || keeps(at / kPageSize);
      if (!extents.empty() && extents.back().allocated == allocated) {
        extents.back().size_bytes += page.size();
      } else {
        extents.push_back({at, page.size(), allocated, true});
      }
    }
    if (extents.empty()) extents.push_back({0, 0, true, true});
    return std::make_unique<FakeSource>(std::move(extents), content);
  }

  ByteVector content;
  std::atomic<uint64_t> bytes_changed = 0;
  std::atomic<uint64_t> calls = 0;
  uint64_t failing_call = UINT64_MAX;

 private:
  // Pages do not overlap, so that threads may write at once.
  Status Count(uint64_t bytes) {
    if (calls++ >= failing_call) return Status(reason::kTargetFull, "as the test wanted");
    bytes_changed += bytes;
    return Status();
  }
};

uint64_t DifferentBytes(Bytes one, Bytes other) {
  uint64_t bytes = 0;
  for (size_t at = 0; at < one.size(); at += kPageSize) {
    const size_t size = std::min(kPageSize, one.size() - at);
    if (!Equal(one.subspan(at, size), other.subspan(at, size))) bytes += size;
  }
  return bytes;
}

class RestoreDifferenceTest : public ::testing::Test {
 protected:
  uint64_t Below(uint64_t end) { return random_() % end; }

  void Fill(MutableBytes bytes) {
    const uint64_t kind = Below(4);
    if (kind == 0) return std::fill(bytes.begin(), bytes.end(), std::byte{0});
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(kind == 1 ? 42 : random_());
  }

  // A disk of blocks that are holes, repeated, or of pages of which some are zeroes.
  void MakeDisk(uint64_t size_bytes) {
    wanted_.assign(size_bytes, std::byte{0});
    MapWriter map(&chunks_, BlockCountOf(size_bytes));
    for (uint64_t index = 0; index < BlockCountOf(size_bytes); ++index) {
      const MutableBytes block =
          MutableBytes(wanted_).subspan(index * kBlockSize, BlockSizeAt(size_bytes, index));
      if (Below(3) == 0) continue;
      for (size_t at = 0; at < block.size(); at += kPageSize) {
        Fill(block.subspan(at, std::min(kPageSize, block.size() - at)));
      }
      if (IsZero(block)) continue;
      EXPECT_TRUE(map.Put(index, chunks_.AddChunk(block)).ok());
    }
    const Result<std::optional<Digest>> root = map.Finish();
    EXPECT_TRUE(root.ok());
    disk_ = {*root, size_bytes};
  }

  // The disk with `changes` runs of pages and blocks that differ, and something behind its end.
  ByteVector Aged(uint64_t changes, uint64_t tail_bytes) {
    ByteVector aged = wanted_;
    for (uint64_t i = 0; i < changes && !aged.empty(); ++i) {
      const size_t unit = Below(2) == 0 ? kPageSize : kBlockSize;
      const size_t at = Below(aged.size() / unit + 1) * unit;
      if (at >= aged.size()) continue;
      Fill(MutableBytes(aged).subspan(at, std::min(unit * (1 + Below(3)), aged.size() - at)));
    }
    aged.resize(aged.size() + tail_bytes, std::byte{9});
    return aged;
  }

  Status Restore(MemoryImage* image, Progress* progress) {
    const uint64_t seed = Below(1000);
    // A thread may begin to read when another one writes already; both hold blocks of their own,
    // which a copy made then would not tell apart.
    const MemoryImage before(image->content);
    const OpenImageSource open = [&]() -> Result<std::unique_ptr<BlockSource>> {
      std::lock_guard<std::mutex> lock(mutex_);
      // The same answer for every thread.
      auto source = before.Source([seed](uint64_t page) { return ((page / 40) ^ seed) % 5 == 0; });
      if (failing_read_ != SIZE_MAX) source->FailRead(failing_read_);
      return std::unique_ptr<BlockSource>(std::move(source));
    };
    return RestoreDifference(&chunks_, chunks_.naming(), disk_, open, image, &cancel_, progress);
  }

  void ExpectDisk(const MemoryImage& image) {
    const Bytes content = image.content;
    EXPECT_TRUE(Equal(content.first(wanted_.size()), wanted_));
    EXPECT_TRUE(IsZero(content.subspan(wanted_.size())));
  }

  std::mt19937 random_{1};
  MemoryChunks chunks_;
  ByteVector wanted_;
  StoredDisk disk_;
  Cancel cancel_;
  std::mutex mutex_;
  size_t failing_read_ = SIZE_MAX;
};

TEST_F(RestoreDifferenceTest, WritesJustThePagesThatDiffer) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("SEED=" + std::to_string(seed));
    random_.seed(seed);
    MakeDisk(Below(2) * 512 + Below(260) * kPageSize * (1 + Below(12)));
    const uint64_t tail_bytes = Below(3) == 0 ? 1 + Below(511) : 0;
    MemoryImage image(Aged(Below(40), tail_bytes));
    const uint64_t different = DifferentBytes(Bytes(image.content).first(wanted_.size()), wanted_);
    Progress progress;
    const Status status = Restore(&image, &progress);
    ASSERT_TRUE(status.ok()) << status.message();
    ExpectDisk(image);
    EXPECT_EQ(image.bytes_changed, different + tail_bytes);
    EXPECT_EQ(progress.stored_bytes.value(), different + tail_bytes);
    EXPECT_EQ(progress.changed_bytes.value(), different + tail_bytes);
    EXPECT_EQ(progress.position_bytes.value(), wanted_.size());
  }
}

TEST_F(RestoreDifferenceTest, WritesNothingToTheDiskItself) {
  MakeDisk(40 * kBlockSize + 1024);
  MemoryImage image(wanted_);
  Progress progress;
  ASSERT_TRUE(Restore(&image, &progress).ok());
  EXPECT_EQ(image.calls, 0u);
  EXPECT_EQ(progress.read_bytes.value(), 0u);
  EXPECT_GT(progress.compared_bytes.value(), 0u);
}

TEST_F(RestoreDifferenceTest, NeverReadsWhereBothAreHoles) {
  MakeDisk(0);
  wanted_.assign(1000 * kBlockSize, std::byte{0});
  disk_ = {std::nullopt, wanted_.size()};
  MemoryImage image(wanted_);
  const OpenImageSource open = [&]() -> Result<std::unique_ptr<BlockSource>> {
    return std::unique_ptr<BlockSource>(image.Source([](uint64_t) { return false; }));
  };
  Progress progress;
  ASSERT_TRUE(
      RestoreDifference(&chunks_, chunks_.naming(), disk_, open, &image, &cancel_, &progress).ok());
  EXPECT_EQ(progress.compared_bytes.value(), 0u);
}

TEST_F(RestoreDifferenceTest, IsFinishedByAnotherWhereverItFailed) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("SEED=" + std::to_string(seed));
    random_.seed(seed);
    MakeDisk(100 * kBlockSize);
    MemoryImage image(Aged(60, 0));
    image.failing_call = Below(30);
    Progress first;
    const Status failure = Restore(&image, &first);
    EXPECT_TRUE(failure.ok() || failure.Is(reason::kTargetFull)) << failure.message();
    image.failing_call = UINT64_MAX;
    const uint64_t left = DifferentBytes(image.content, wanted_);
    image.bytes_changed = 0;
    Progress second;
    ASSERT_TRUE(Restore(&image, &second).ok());
    ExpectDisk(image);
    EXPECT_EQ(image.bytes_changed, left);
  }
}

TEST_F(RestoreDifferenceTest, StopsAtAReadThatFails) {
  MakeDisk(100 * kBlockSize);
  MemoryImage image(Aged(60, 0));
  failing_read_ = 1;
  Progress progress;
  const Status failure = Restore(&image, &progress);
  EXPECT_TRUE(failure.Is(reason::kSourceReadFailed));
  EXPECT_NE(failure.message().find("compare with the image"), std::string::npos);
  EXPECT_LT(progress.position_bytes.value(), wanted_.size());
  failing_read_ = SIZE_MAX;
  ASSERT_TRUE(Restore(&image, &progress).ok());
  ExpectDisk(image);
}

TEST_F(RestoreDifferenceTest, WritesNothingWhenTheMapIsDamaged) {
  MakeDisk(100 * kBlockSize);
  MemoryImage image(Aged(60, 0));
  chunks_.Lose(*disk_.root);
  Progress progress;
  EXPECT_TRUE(Restore(&image, &progress).Is(reason::kChunkMissing));
  EXPECT_EQ(image.calls, 0u);
}

TEST_F(RestoreDifferenceTest, WritesNoByteOfAChunkThatIsNotProven) {
  MakeDisk(kBlockSize);
  while (!disk_.root.has_value()) MakeDisk(kBlockSize);
  MemoryImage image(ByteVector(kBlockSize, std::byte{9}));
  chunks_.Lose(chunks_.naming().ChunkName(wanted_));
  Progress progress;
  EXPECT_TRUE(Restore(&image, &progress).Is(reason::kChunkMissing));
  EXPECT_EQ(image.calls, 0u);
}

TEST_F(RestoreDifferenceTest, RefusesAnImageOfAnotherSize) {
  MakeDisk(10 * kBlockSize);
  for (const uint64_t size : {9 * uint64_t{kBlockSize}, 10 * uint64_t{kBlockSize} + 512}) {
    MemoryImage image{ByteVector(size)};
    Progress progress;
    EXPECT_TRUE(Restore(&image, &progress).Is(reason::kDiskSizeMismatch));
    EXPECT_EQ(image.calls, 0u);
  }
}

TEST_F(RestoreDifferenceTest, StopsWhenCancelled) {
  MakeDisk(100 * kBlockSize);
  MemoryImage image(Aged(60, 0));
  cancel_.Request();
  Progress progress;
  EXPECT_TRUE(Restore(&image, &progress).Is(reason::kCancelled));
  EXPECT_EQ(image.calls, 0u);
}

}  // namespace
}  // namespace blockferry
