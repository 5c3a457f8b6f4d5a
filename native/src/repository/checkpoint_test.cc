// Where a session goes on that follows one of the same point.
#include <chrono>
#include <thread>

#include "repository/checkpoint_format.h"
#include "repository/session_fixture.h"

namespace blockferry {
namespace {

class CheckpointTest : public SessionTest {};

INSTANTIATE_TEST_SUITE_P(Sealing, CheckpointTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "InBackground" : "AtOnce");
});

// A disk of random blocks up to one that fills the first pack, known blocks from there on.
constexpr uint64_t kFillingBlocks = 9;

TEST_P(CheckpointTest, ContinuesAtTheCheckpointOfTheSamePoint) {
  uint64_t stored;
  {
    std::unique_ptr<Session> session = Open("p1", {1, 1});
    std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kSize, std::nullopt);
    EXPECT_EQ(writer->resumed_at(), 0u);
    ASSERT_TRUE(WriteTestDisk(*writer, disk_, kSize, 200).ok());
    stored = writer->counters().stored;
  }
  Reopen();
  {
    std::unique_ptr<Session> other_point = Open("p2", {1, 0});
    EXPECT_EQ((*other_point->OpenDisk("d", kSize, std::nullopt))->resumed_at(), 0u);
  }
  EXPECT_TRUE(SessionFiles().empty());
  for (auto& [index, seed] : disk_) seed += 1000;
  {
    std::unique_ptr<Session> session = Open("p3", {1, 3});
    std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kSize, std::nullopt);
    ASSERT_TRUE(WriteTestDisk(*writer, disk_, kSize, 200).ok());
  }
  EXPECT_FALSE(SessionFiles().empty());
  Reopen();
  std::unique_ptr<Session> session = Open("p3", {1, 4});
  // Another disk, another size, another base: no checkpoint of theirs.
  EXPECT_EQ((*session->OpenDisk("e", kSize, std::nullopt))->resumed_at(), 0u);
  EXPECT_EQ((*session->OpenDisk("d", kSize + 1, std::nullopt))->resumed_at(), 0u);
  EXPECT_EQ((*session->OpenDisk("d", kSize, Digest{}))->resumed_at(), 0u);
  std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kSize, std::nullopt);
  // Three packs of eight blocks of every seventh index were full.
  EXPECT_GE(writer->resumed_at(), 3 * 7 * 7u);
  EXPECT_LT(writer->resumed_at(), 200u);
  EXPECT_GT(writer->counters().read, 0u);
  EXPECT_LE(writer->counters().stored, stored);
  ASSERT_TRUE(WriteTestDisk(*writer, disk_, kSize, 301).ok());
  Result<std::optional<Digest>> root = writer->Finish();
  ASSERT_TRUE(root.ok());
  ASSERT_TRUE(session->Commit({"b1", "", {{"d", *root, kSize}}, {}}).ok());
  EXPECT_EQ(CompareTestDisk(*repository_, *root, disk_, kSize), "");
  EXPECT_TRUE(SessionFiles().empty());
}

TEST_P(CheckpointTest, IgnoresACheckpointWhosePackIsGoneOrThatIsDamaged) {
  {
    std::unique_ptr<Session> session = Open("p1", {1, 1});
    std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kSize, std::nullopt);
    ASSERT_TRUE(WriteTestDisk(*writer, disk_, kSize, 200).ok());
  }
  std::vector<std::string> left = SessionFiles();
  ASSERT_EQ(left.size(), 1u);
  std::unique_ptr<CrashFiles> copy = files_.Copy();
  for (size_t bit = 0; bit < files_.Content(left[0])->size() * 8; bit += 97) {
    (*files_.Content(left[0]))[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    std::unique_ptr<Session> session = Open("p1", {1, 2});
    EXPECT_EQ((*session->OpenDisk("d", kSize, std::nullopt))->resumed_at(), 0u) << bit;
    session.reset();
    (*files_.Content(left[0]))[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
  }
  for (const std::string& path : files_.AllFiles()) {
    if (path.ends_with(".pack")) {
      ASSERT_TRUE(files_.Remove(path).ok());
    }
  }
  Reopen();
  std::unique_ptr<Session> session = Open("p1", {1, 3});
  EXPECT_EQ((*session->OpenDisk("d", kSize, std::nullopt))->resumed_at(), 0u);
}

TEST_P(CheckpointTest, KeepsACheckpointOfADiskThatIsComplete) {
  {
    std::unique_ptr<Session> session = Open("p1", {1, 1});
    ASSERT_TRUE(StoreTestDisk(*session, "d", disk_, kSize).ok());
    TestDisk other;
    for (uint32_t i = 0; i < 20; ++i) other[i] = 5000 + i;
    ASSERT_TRUE(StoreTestDisk(*session, "e", other, kSize).ok());
  }
  Reopen();
  std::unique_ptr<Session> session = Open("p1", {1, 2});
  std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kSize, std::nullopt);
  EXPECT_EQ(writer->resumed_at(), BlockCountOf(kSize));
  Result<std::optional<Digest>> root = writer->Finish();
  ASSERT_TRUE(root.ok());
  ASSERT_TRUE(session->Commit({"b1", "", {{"d", *root, kSize}}, {}}).ok());
  EXPECT_EQ(CompareTestDisk(*repository_, *root, disk_, kSize), "");
}

TEST_P(CheckpointTest, MakesACheckpointOnlyOfWhatIsDurable) {
  constexpr uint64_t kShortBlocks = checkpoint_format::kBlockInterval - 100;
  constexpr uint64_t kShort = kShortBlocks * kBlockSize;
  constexpr uint64_t kBlocks = checkpoint_format::kBlockInterval + 100;
  constexpr uint64_t kLarge = kBlocks * kBlockSize;
  ByteVector block = TestBlock(1, kBlockSize);
  Digest name = repository_->naming().ChunkName(block);
  // One block is stored, all others have the same content: no pack is ever full, and none is sealed
  // early in less than the interval.
  auto write = [&](const std::string& point, uint64_t number, uint64_t* resumed_at) {
    std::unique_ptr<Session> session = Open(point, {1, number});
    std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kShort, std::nullopt);
    *resumed_at = writer->resumed_at();
    for (uint64_t index = writer->resumed_at(); index < kShortBlocks; ++index) {
      Result<bool> known = writer->PutKnown(index, name);
      ASSERT_TRUE(known.ok());
      if (*known) continue;
      ASSERT_TRUE(
          writer->Put(index, {RecordType::kChunk, Codec::kStored, name, kBlockSize, block}).ok());
    }
    if (number < 3) return;
    Result<std::optional<Digest>> root = writer->Finish();
    ASSERT_TRUE(root.ok());
    ASSERT_TRUE(session->Commit({"b1", "", {{"d", *root, kShort}}, {}}).ok());
  };
  uint64_t resumed_at;
  write("p1", 1, &resumed_at);
  // The session ended with its pack, so nothing may go on from it.
  write("p1", 2, &resumed_at);
  EXPECT_EQ(resumed_at, 0u);
  write("p1", 3, &resumed_at);
  EXPECT_EQ(resumed_at, 0u);
  // Now the content is durable: the interval alone makes a checkpoint.
  {
    std::unique_ptr<Session> session = Open("p2", {1, 4});
    std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kLarge, std::nullopt);
    for (uint64_t index = 0; index < kBlocks; ++index) {
      ASSERT_TRUE(*writer->PutKnown(index, name));
    }
  }
  std::unique_ptr<Session> session = Open("p2", {1, 5});
  EXPECT_EQ((*session->OpenDisk("d", kLarge, std::nullopt))->resumed_at(),
            checkpoint_format::kBlockInterval);
}

TEST_P(CheckpointTest, ContinuesBehindALongStretchOfKnownBlocksAfterAKill) {
  const uint64_t size = 40'000 * uint64_t{kBlockSize};
  std::unique_ptr<Session> session = Open("p", {1, 1});
  std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", size, std::nullopt);
  TestDisk filling;
  for (uint32_t i = 0; i < kFillingBlocks; ++i) filling[i] = 1 + i;
  ASSERT_TRUE(WriteTestDisk(*writer, filling, size, kFillingBlocks).ok());
  const Digest known = repository_->naming().ChunkName(TestBlock(1, kBlockSize));
  for (uint64_t index = kFillingBlocks; index < 20'000; ++index) {
    // What is sealed in the background is durable long before the stretch ends.
    if (index % 19'000 == 100) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    Result<bool> put = writer->PutKnown(index, known);
    ASSERT_TRUE(put.ok() && *put);
  }
  // As after a kill: nothing of the session tidies up.
  const std::unique_ptr<CrashFiles> left = files_.Copy();
  std::unique_ptr<Repository> repository = *Repository::Open(*left, kFolder, false, {});
  std::unique_ptr<Session> next = *repository->OpenSession({vm_, "p", {1, 2}});
  EXPECT_GE((*next->OpenDisk("d", size, std::nullopt))->resumed_at(),
            checkpoint_format::kBlockInterval);
}

TEST_P(CheckpointTest, ContinuesBehindThePackThatWasFullWhenItWasAborted) {
  std::unique_ptr<Session> session = Open("p", {1, 1});
  std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kSize, std::nullopt);
  TestDisk filling;
  for (uint32_t i = 0; i < kFillingBlocks; ++i) filling[i] = 1 + i;
  ASSERT_TRUE(WriteTestDisk(*writer, filling, kSize, kFillingBlocks).ok());
  ASSERT_TRUE(session->Abort().ok());
  writer.reset();
  session = Open("p", {1, 2});
  EXPECT_GT((*session->OpenDisk("d", kSize, std::nullopt))->resumed_at(), 0u);
}

}  // namespace
}  // namespace blockferry
