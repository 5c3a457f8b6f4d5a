#include <algorithm>
#include <thread>

#include "repository/session_fixture.h"
#include "repository/stored_check.h"

namespace blockferry {
namespace {

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

// What a process found damaged, others know by the marks it leaves.
class DamageMarks : public SessionTest {
 protected:
  void SetUp() override {
    SessionTest::SetUp();
    Result<Manifest> manifest = BackUp("b1", {1, 1});
    ASSERT_TRUE(manifest.ok());
    manifest_ = *std::move(manifest);
    for (const std::string& path : files_.AllFiles()) {
      if (path.ends_with(".pack")) pack_ = path;
    }
    Flip();
  }
  // A byte of the first record of a pack, or back again.
  void Flip() { (*files_.Content(pack_))[300] ^= std::byte{1}; }
  size_t Marks() {
    const std::vector<std::string> paths = files_.AllFiles();
    return static_cast<size_t>(
        std::count_if(paths.begin(), paths.end(),
                      [](const std::string& path) { return path.ends_with(".damaged"); }));
  }
  std::string Compare() {
    return CompareTestDisk(*repository_, manifest_.disks[0].root, disk_, kSize);
  }
  void ExpectAnotherHeals() {
    EXPECT_EQ(Marks(), 1u);
    Reopen();
    ASSERT_TRUE(BackUp("b2", {1, 2}).ok());
    Reopen();
    EXPECT_EQ(Compare(), "");
    // It is known for as long as the pack is there.
    EXPECT_EQ(Marks(), 1u);
  }

  Manifest manifest_;
  std::string pack_;
};

INSTANTIATE_TEST_SUITE_P(Sealing, DamageMarks, testing::Bool());

TEST_P(DamageMarks, LetAnotherProcessHealWhatWasRead) {
  EXPECT_EQ(Marks(), 0u);
  EXPECT_NE(Compare(), "");
  ExpectAnotherHeals();
}

TEST_P(DamageMarks, LetAnotherProcessHealWhatACheckOfStoredBytesFound) {
  const Cancel cancel;
  Progress progress;
  RateLimit no_limit(0);
  EXPECT_EQ(CheckStored(files_, kFolder, &cancel, &progress, &no_limit)->damages.size(), 1u);
  ExpectAnotherHeals();
}

TEST_P(DamageMarks, GoWhenTheRecordIsReadAndIsWhole) {
  EXPECT_NE(Compare(), "");
  Flip();
  Reopen();
  EXPECT_EQ(Compare(), "");
  EXPECT_EQ(Marks(), 0u);
  const uint64_t stored = repository_->info().stored;
  ASSERT_TRUE(BackUp("b2", {1, 2}).ok());
  EXPECT_EQ(repository_->info().stored, stored);
}

TEST_P(DamageMarks, StayWhenOnlyThePlainBytesWereCompared) {
  EXPECT_NE(Compare(), "");
  Flip();
  Reopen();
  MapReader reader(repository_.get(), manifest_.disks[0].root, BlockCountOf(kSize));
  for (const auto& [index, seed] : disk_) {
    ByteVector plain(BlockSizeAt(kSize, index));
    EXPECT_TRUE(repository_->ReadChunk(**reader.Find(index), plain, Proof::kPlain, nullptr).ok());
  }
  EXPECT_EQ(Marks(), 1u);
}

TEST_P(DamageMarks, AreNoFailureWhereNothingCanBeWritten) {
  files_.FailAt(1, Status(reason::kRepositoryFull, "planned"));
  EXPECT_NE(Compare(), "");
  EXPECT_TRUE(files_.planned_fault_came());
  files_.FailAt(0, {});
  EXPECT_EQ(Marks(), 0u);
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

}  // namespace
}  // namespace blockferry
