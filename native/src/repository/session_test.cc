#include "repository/session.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "core/crash_files.h"
#include "repository/checkpoint_format.h"
#include "repository/repository.h"
#include "repository/test_disk.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
constexpr uint64_t kSize = 300 * uint64_t{kBlockSize} + 512;

// Every promise holds whether packs are sealed at once or in the background.
class SessionTest : public testing::TestWithParam<bool> {
 protected:
  SessionTest() {
    EXPECT_TRUE(Repository::Create(files_, kFolder).ok());
    Reopen();
    vm_ = repository_->naming().Pseudonym("vm-1");
    for (uint32_t i = 0; i < 40; ++i) disk_[i * 7] = 100 + i;
    disk_[300] = 7;  // The short block at the end.
  }

  void Reopen() {
    repository_.reset();
    // Small packs, so that one backup has several.
    Result<std::unique_ptr<Repository>> opened =
        Repository::Open(files_, kFolder, false, {512 * 1024, 2, GetParam()});
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    repository_ = *std::move(opened);
  }

  std::unique_ptr<Session> Open(const std::string& point, FencingToken token) {
    Result<std::unique_ptr<Session>> session = repository_->OpenSession({vm_, point, token});
    EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.status().message());
    return session.ok() ? *std::move(session) : nullptr;
  }

  // A full backup of disk_, by a session of its own.
  Result<Manifest> BackUp(const std::string& backup_id, FencingToken token) {
    std::unique_ptr<Session> session = Open("point-" + backup_id, token);
    ASSIGN_OR_RETURN(std::optional<Digest> root, StoreTestDisk(*session, "d", disk_, kSize));
    return session->Commit({backup_id, "", {{"d", root, kSize}}, {}});
  }

  std::vector<std::string> SessionFolders() {
    std::vector<std::string> found;
    const std::string folder = "/r/sessions/" + vm_;
    const Result<std::vector<FolderEntry>> entries = files_.List(folder);
    for (const FolderEntry& entry : *entries) {
      if (entry.is_folder) found.push_back(folder + "/" + entry.name);
    }
    return found;
  }

  std::vector<std::string> SessionFiles() {
    std::vector<std::string> found;
    for (const std::string& path : files_.AllFiles()) {
      if (path.starts_with("/r/sessions/")) found.push_back(path);
    }
    return found;
  }

  CrashFiles files_;
  std::unique_ptr<Repository> repository_;
  std::string vm_;
  TestDisk disk_;
};

INSTANTIATE_TEST_SUITE_P(Sealing, SessionTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "InBackground" : "AtOnce");
});

TEST_P(SessionTest, CommitsWhatCanBeReadBack) {
  Result<Manifest> manifest = BackUp("b1", {1, 1});
  ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  EXPECT_EQ(manifest->sequence, 1u);
  EXPECT_TRUE(SessionFiles().empty());
  Reopen();
  Result<std::vector<ListedManifest>> listed = repository_->ListManifests(std::nullopt);
  ASSERT_TRUE(listed.ok());
  ASSERT_EQ(listed->size(), 1u);
  const Manifest& stored = *(*listed)[0].manifest;
  EXPECT_EQ(stored.backup_id, "b1");
  EXPECT_EQ(CompareTestDisk(*repository_, stored.disks[0].root, disk_, kSize), "");
  EXPECT_EQ(repository_->info().chunk_count, disk_.size());
  EXPECT_GT(repository_->info().pack_count, 3u);
}

TEST_P(SessionTest, StoresOnlyWhatIsNew) {
  ASSERT_TRUE(BackUp("b1", {1, 1}).ok());
  uint64_t stored = repository_->info().stored;
  ASSERT_TRUE(BackUp("b2", {1, 2}).ok());
  EXPECT_EQ(repository_->info().stored, stored);
  TestDisk before = disk_;
  disk_[8] = 999;
  std::unique_ptr<Session> session = Open("p3", {1, 3});
  std::optional<Digest> base = repository_->ListManifests(vm_)->back().manifest->disks[0].root;
  Result<std::optional<Digest>> root = StoreTestDiskOver(*session, "d", disk_, before, base, kSize);
  ASSERT_TRUE(root.ok());
  ASSERT_TRUE(session->Commit({"b3", "b2", {{"d", *root, kSize}}, {}}).ok());
  // One block, the two map nodes on its path, and the pack around them.
  EXPECT_LT(repository_->info().stored, stored + kBlockSize + 2 * 2200 + 1000);
  EXPECT_EQ(CompareTestDisk(*repository_, *root, disk_, kSize), "");
  EXPECT_EQ(CompareTestDisk(*repository_, base, before, kSize), "");
}

TEST_P(SessionTest, FencesAnOlderSession) {
  std::unique_ptr<Session> old_session = Open("p1", {1, 1});
  Result<std::optional<Digest>> root = StoreTestDisk(*old_session, "d", disk_, kSize);
  ASSERT_TRUE(root.ok());
  std::unique_ptr<Session> new_session = Open("p2", {1, 2});
  Result<Manifest> late = old_session->Commit({"b1", "", {{"d", *root, kSize}}, {}});
  EXPECT_TRUE(late.status().Is(reason::kRunFenced));
  EXPECT_TRUE(repository_->ListManifests(vm_)->empty());
  root = StoreTestDisk(*new_session, "d", disk_, kSize);
  ASSERT_TRUE(root.ok());
  EXPECT_TRUE(new_session->Commit({"b2", "", {{"d", *root, kSize}}, {}}).ok());
}

TEST_P(SessionTest, ThatFailsLeavesAPackThatAnotherBackupRefersTo) {
  bool came = true;
  for (uint64_t call = 1; came; ++call) {
    for (auto& [index, content] : disk_) content += 1000;
    files_.FailAt(call, Status(reason::kRepositoryUnreachable, "planned"));
    Result<std::unique_ptr<Session>> failing = repository_->OpenSession(
        {repository_->naming().Pseudonym("vm-2"), "point-" + std::to_string(call), {1, call}});
    if (failing.ok()) static_cast<void>(StoreTestDisk(**failing, "d", disk_, kSize).ok());
    came = files_.planned_fault_came();
    files_.FailAt(0, {});
    // What the failing session has sealed is there for everybody, synced or not.
    Result<Manifest> manifest = BackUp("b" + std::to_string(call), {1, call});
    ASSERT_TRUE(manifest.ok()) << manifest.status().message();
    failing = Status(reason::kCancelled, "");
    Reopen();
    EXPECT_EQ(CompareTestDisk(*repository_, manifest->disks[0].root, disk_, kSize), "") << call;
  }
}

TEST_P(SessionTest, IsListedForGoodOnceItIsListed) {
  bool came = true;
  for (uint64_t call = 1; came; ++call) {
    std::unique_ptr<Session> session = Open("point-" + std::to_string(call), {1, call});
    files_.FailAt(call, Status(reason::kRepositoryUnreachable, "planned"));
    static_cast<void>(session->Commit({"b" + std::to_string(call), "", {}, {}}).ok());
    came = files_.planned_fault_came();
    files_.FailAt(0, {});
    size_t count = repository_->ListManifests(vm_)->size();
    session.reset();
    repository_.reset();
    files_.Restart(CrashFiles::Survivor::kPlatter, 1);
    Reopen();
    EXPECT_EQ(repository_->ListManifests(vm_)->size(), count) << call;
  }
}

TEST_P(SessionTest, FencesAnOlderSessionThatACrashLeftUnderBothNames) {
  std::unique_ptr<Session> older = Open("p1", {1, 1});
  const std::string folder = SessionFolders().at(0);
  ASSERT_TRUE(files_.CreateFolder(folder + ".0123456789abcdef.fenced").ok());
  std::unique_ptr<Session> newer = Open("p2", {1, 2});
  ASSERT_NE(newer, nullptr);
  EXPECT_TRUE(older->Commit({"b1", "", {}, {}}).status().Is(reason::kRunFenced));
  EXPECT_TRUE(newer->Commit({"b2", "", {}, {}}).ok());
  EXPECT_TRUE(SessionFiles().empty());
  EXPECT_TRUE(SessionFolders().empty());
}

TEST_P(SessionTest, OfAnOlderTokenIsRefusedWhileANewerIsOpenAndAfterItCommitted) {
  {
    std::unique_ptr<Session> newer = Open("p2", {2, 1});
    EXPECT_TRUE(repository_->OpenSession({vm_, "p1", {1, 99}}).status().Is(reason::kRunFenced));
  }
  ASSERT_TRUE(BackUp("b2", {2, 1}).ok());
  EXPECT_TRUE(repository_->OpenSession({vm_, "p1", {1, 99}}).status().Is(reason::kRunFenced));
  EXPECT_TRUE(SessionFiles().empty());
}

TEST_P(SessionTest, OfTheSameTokenTakesOver) {
  std::unique_ptr<Session> first = Open("p1", {1, 1});
  std::unique_ptr<Session> second = Open("p1", {1, 1});
  EXPECT_TRUE(first->Commit({"b1", "", {}, {}}).status().Is(reason::kRunFenced));
  EXPECT_TRUE(second->Commit({"b1", "", {}, {}}).ok());
}

TEST_P(SessionTest, OfAnotherVmIsNotFenced) {
  std::unique_ptr<Session> one = Open("p1", {1, 1});
  Result<std::unique_ptr<Session>> other =
      repository_->OpenSession({repository_->naming().Pseudonym("vm-2"), "p1", {1, 2}});
  ASSERT_TRUE(other.ok());
  EXPECT_TRUE(one->Commit({"b1", "", {}, {}}).ok());
  EXPECT_TRUE((*other)->Commit({"b1", "", {}, {}}).ok());
}

TEST_P(SessionTest, GivesTheSameAnswerWhenAskedAgain) {
  std::unique_ptr<Session> session = Open("p1", {1, 1});
  Result<Manifest> first = session->Commit({"b1", "", {}, {}});
  ASSERT_TRUE(first.ok());
  Result<Manifest> again = session->Commit({"b1", "", {}, {}});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->sequence, first->sequence);
  // The mover was restarted and has lost the answer; the run has drawn a new backup id.
  std::unique_ptr<Session> restarted = Open("p1", {1, 2});
  Result<Manifest> once_more = restarted->Commit({"b1-again", "", {}, {}});
  ASSERT_TRUE(once_more.ok());
  EXPECT_EQ(once_more->backup_id, "b1");
  EXPECT_EQ(repository_->ListManifests(vm_)->size(), 1u);
}

TEST_P(SessionTest, RefusesABaseThatIsGoneAndABackupIdThatIsTaken) {
  std::unique_ptr<Session> session = Open("p1", {1, 1});
  EXPECT_TRUE(session->Commit({"b1", "b0", {}, {}}).status().Is(reason::kBaseMissing));
  EXPECT_TRUE(session->Commit({"a/b", "", {}, {}}).status().Is(reason::kArgumentInvalid));
  EXPECT_TRUE(session->Commit({"b1", "", {}, {}}).ok());
  std::unique_ptr<Session> second = Open("p2", {1, 2});
  EXPECT_TRUE(second->Commit({"b1", "", {}, {}}).status().Is(reason::kAlreadyExists));
}

TEST_P(SessionTest, RefusesToCommitOverAPackThatVanished) {
  ASSERT_TRUE(BackUp("b1", {1, 1}).ok());
  std::unique_ptr<Session> session = Open("p2", {1, 2});
  Result<std::optional<Digest>> root = StoreTestDisk(*session, "d", disk_, kSize);
  ASSERT_TRUE(root.ok());
  for (const std::string& path : files_.AllFiles()) {
    if (path.ends_with(".pack")) {
      ASSERT_TRUE(files_.Remove(path).ok());
      break;
    }
  }
  Result<Manifest> manifest = session->Commit({"b2", "", {{"d", *root, kSize}}, {}});
  EXPECT_TRUE(manifest.status().Is(reason::kChunkMissing));
  EXPECT_EQ(repository_->ListManifests(vm_)->size(), 1u);
}

TEST_P(SessionTest, RefusesToCommitARootThatNobodyStored) {
  std::unique_ptr<Session> session = Open("p1", {1, 1});
  Result<Manifest> manifest = session->Commit({"b1", "", {{"d", Digest{}, kSize}}, {}});
  EXPECT_TRUE(manifest.status().Is(reason::kChunkMissing));
}

TEST_P(SessionTest, ContinuesAtTheCheckpointOfTheSamePoint) {
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

TEST_P(SessionTest, IgnoresACheckpointWhosePackIsGoneOrThatIsDamaged) {
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

TEST_P(SessionTest, KeepsACheckpointOfADiskThatIsComplete) {
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

TEST_P(SessionTest, TakesSeveralDisksAtOnce) {
  std::unique_ptr<Session> session = Open("p1", {1, 1});
  constexpr int kDisks = 4;
  std::vector<TestDisk> disks(kDisks);
  std::vector<std::optional<Digest>> roots(kDisks);
  std::vector<std::thread> threads;
  for (int d = 0; d < kDisks; ++d) {
    // Half of the content is shared between the disks.
    for (uint32_t i = 0; i < 60; ++i) disks[d][i * 3] = i % 2 == 0 ? i : 1000 * d + i;
    threads.emplace_back([&, d] {
      Result<std::optional<Digest>> root =
          StoreTestDisk(*session, "d" + std::to_string(d), disks[d], kSize);
      ASSERT_TRUE(root.ok());
      roots[d] = *root;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CommitOptions options{"b1", "", {}, {}};
  for (int d = 0; d < kDisks; ++d)
    options.disks.push_back({"d" + std::to_string(d), roots[d], kSize});
  ASSERT_TRUE(session->Commit(options).ok());
  Reopen();
  for (int d = 0; d < kDisks; ++d) {
    EXPECT_EQ(CompareTestDisk(*repository_, roots[d], disks[d], kSize), "") << d;
  }
  EXPECT_EQ(repository_->info().chunk_count, 30u + 4 * 30u);
}

TEST_P(SessionTest, StoresAChunkAnewThatIsKnownToBeDamaged) {
  Result<Manifest> manifest = BackUp("b1", {1, 1});
  ASSERT_TRUE(manifest.ok());
  for (const std::string& path : files_.AllFiles()) {
    if (path.ends_with(".pack")) (*files_.Content(path))[300] ^= std::byte{1};
  }
  EXPECT_NE(CompareTestDisk(*repository_, manifest->disks[0].root, disk_, kSize), "");
  MapReader reader(repository_.get(), manifest->disks[0].root, BlockCountOf(kSize));
  ByteVector plain(kBlockSize);
  int damaged = 0;
  for (const auto& [index, seed] : disk_) {
    Digest name = **reader.Find(index);
    plain.resize(BlockSizeAt(kSize, index));
    Status read = repository_->ReadChunk(name, plain, Proof::kPlain, nullptr);
    if (read.ok()) continue;
    EXPECT_TRUE(read.Is(reason::kBlockCorrupt));
    EXPECT_EQ(read.metadata()[0].second, HexOf(name));
    EXPECT_FALSE(repository_->Has(name));
    ++damaged;
  }
  EXPECT_GT(damaged, 0);
  Result<Manifest> again = BackUp("b2", {1, 2});
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(CompareTestDisk(*repository_, again->disks[0].root, disk_, kSize), "");
  EXPECT_EQ(CompareTestDisk(*repository_, manifest->disks[0].root, disk_, kSize), "");
}

TEST_P(SessionTest, MakesACheckpointOnlyOfWhatIsDurable) {
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

TEST_P(SessionTest, ReadsNoChunkThatWasStoredUnderAnotherName) {
  std::unique_ptr<Session> session = Open("p1", {1, 1});
  std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kSize, std::nullopt);
  ByteVector block = TestBlock(1, kBlockSize);
  Digest name = repository_->naming().ChunkName(block);
  block[5] ^= std::byte{1};
  ASSERT_TRUE(writer->Put(0, {RecordType::kChunk, Codec::kStored, name, kBlockSize, block}).ok());
  Result<std::optional<Digest>> root = writer->Finish();
  ASSERT_TRUE(root.ok());
  ASSERT_TRUE(session->Commit({"b1", "", {{"d", *root, kSize}}, {}}).ok());
  ByteVector plain(kBlockSize);
  EXPECT_TRUE(
      repository_->ReadChunk(name, plain, Proof::kPlain, nullptr).Is(reason::kBlockCorrupt));
}

TEST_P(SessionTest, RefusesToStoreAnythingOnceItHasEnded) {
  for (bool commits : {true, false}) {
    std::unique_ptr<Session> session = Open("p1", {1, 1});
    if (commits) {
      ASSERT_TRUE(session->Commit({"b1", "", {}, {}}).ok());
    } else {
      ASSERT_TRUE(session->Abort().ok());
    }
    EXPECT_TRUE(StoreTestDisk(*session, "d", disk_, kSize).status().Is(reason::kArgumentInvalid));
    EXPECT_TRUE(StoreTestDisk(*session, "e", {}, kSize).status().Is(reason::kArgumentInvalid));
    EXPECT_TRUE(SessionFiles().empty());
  }
}

TEST_P(SessionTest, LeavesNothingBehindWhenItAborts) {
  {
    std::unique_ptr<Session> session = Open("p1", {1, 1});
    std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kSize, std::nullopt);
    ASSERT_TRUE(WriteTestDisk(*writer, disk_, kSize, 20).ok());
    EXPECT_EQ(SessionFiles().size(), 1u);
    EXPECT_TRUE(session->Abort().ok());
    EXPECT_TRUE(session->Abort().ok());
  }
  EXPECT_TRUE(SessionFiles().empty());
  EXPECT_TRUE(SessionFolders().empty());
}

// A disk of random blocks up to one that fills the first pack, known blocks from there on.
constexpr uint64_t kFillingBlocks = 9;

TEST_P(SessionTest, ContinuesBehindALongStretchOfKnownBlocksAfterAKill) {
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

TEST_P(SessionTest, ContinuesBehindThePackThatWasFullWhenItWasAborted) {
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
