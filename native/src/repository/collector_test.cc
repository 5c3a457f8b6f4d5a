// What the collector does in single, chosen situations; collection_model_test.cc plays all others.
#include "repository/collector.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "repository/collector_fixture.h"

namespace blockferry {
namespace {

TEST_F(CollectorTest, TakesMarksOfDamageAwayWithTheirPack) {
  const ModelDisk disk{{0, {1, 0}}, {1, {2, 0}}};
  const Manifest manifest = BackUp("v", "b1", disk);
  const std::string pack = PackOf({1, 0});
  (*files_.Content(pack))[300] ^= std::byte{1};
  EXPECT_NE(Compare(manifest, disk), "");
  const auto marks = [&] {
    const std::vector<std::string> paths = files_.AllFiles();
    return std::count_if(paths.begin(), paths.end(),
                         [](const std::string& path) { return path.ends_with(".damaged"); });
  };
  EXPECT_EQ(marks(), 1);
  RemoveForGood("v", "b1");
  EXPECT_EQ(marks(), 1);
  ASSERT_TRUE(Collect().ok());
  EXPECT_TRUE(PackOf({1, 0}).empty());
  ASSERT_TRUE(Collect().ok());
  EXPECT_EQ(marks(), 0);
}

TEST_F(CollectorTest, LetsNoSessionThatWasFencedPublishAPack) {
  BackUp("v", "v-1", {{0, {1, 0}}, {1, {2, 0}}, {2, {3, 0}}});
  const std::unique_ptr<Repository> stopped = Open();
  const std::unique_ptr<Session> session = OpenSession(*stopped, "v");
  std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kModelDiskSize, std::nullopt);
  // It is stopped here. The base of the patch it is about to lay goes.
  RemoveForGood("v", "v-1");
  ASSERT_TRUE(Collect(*Open()->ListOpenSessions()).ok());
  ASSERT_EQ(PackOf({1, 0}), "");
  const Result<bool> put = PutContent(*writer, 0, {1, 1});
  Status gone_on = put.status();
  if (gone_on.ok()) gone_on = ToStatus(writer->Finish());
  if (gone_on.ok()) gone_on = ToStatus(session->Commit({"v-2", "", {}, {}}));
  EXPECT_TRUE(gone_on.Is(reason::kRunFenced)) << gone_on.message();
  const ModelDisk disk{{0, {1, 1}}};
  EXPECT_EQ(Compare(BackUp("w", "w-1", disk), disk), "");
}

TEST_F(CollectorTest, DeletesNothingWhenAPackCannotTellItsBases) {
  BackUp("v", "v-1", {{0, {1, 0}}, {1, {2, 0}}, {2, {3, 0}}});
  const ModelDisk disk{{0, {1, 1}}, {5, {71, 0}}, {6, {72, 0}}, {7, {73, 0}}};
  const Manifest kept = BackUp("w", "w-1", disk);
  RemoveForGood("v", "v-1");
  const std::string path = PackOf({1, 1});
  ByteVector& bytes = *files_.Content(path);
  const ByteVector whole = bytes;
  bytes[bytes.size() - 40] ^= std::byte{1};
  const Status collected = ToStatus(Collect());
  EXPECT_TRUE(collected.Is(reason::kCollectionBlocked)) << collected.message();
  EXPECT_NE(collected.message().find(path), std::string::npos) << collected.message();
  bytes = whole;
  EXPECT_TRUE(Collect().ok());
  EXPECT_EQ(Compare(kept, disk), "");
}

TEST_F(CollectorTest, TakesNoPatchForACopyOfAWholeChunk) {
  const Content base{1, 1};
  BackUp("v", "v-1", {{0, base}, {1, {2, 0}}, {2, {3, 0}}});
  BackUp("w", "w-1", {{0, {3, 0}}});
  BackUp("w", "w-2", {{0, {1, 0}}, {1, {90, 0}}, {2, {91, 0}}});
  const std::unique_ptr<Repository> repository = Open();
  const std::unique_ptr<Session> session = OpenSession(*repository, "t");
  std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kModelDiskSize, std::nullopt);
  // What is live of the first pack is copied; the base is not. It waits for the session.
  RemoveForGood("v", "v-1");
  const Result<CollectReport> waiting = Collect();
  ASSERT_TRUE(waiting.ok());
  ASSERT_EQ(waiting->copied.count, 1u);
  ASSERT_EQ(waiting->deleted.count, 0u);
  // Another one stores the base's content as a patch, and the session lays its own over the base.
  BackUp("u", "u-1", {{0, base}});
  const Result<bool> laid = PutPatch(*writer, 0, {1, 2}, base);
  ASSERT_TRUE(laid.ok() && *laid);
  const std::optional<Digest> root = *writer->Finish();
  const Result<Manifest> kept = session->Commit({"t-1", "", {{"d", root, kModelDiskSize}}, {}});
  ASSERT_TRUE(kept.ok()) << kept.status().message();
  const Result<CollectReport> collected = Collect();
  ASSERT_TRUE(collected.ok());
  EXPECT_EQ(collected->spared.count, 1u);
  EXPECT_EQ(Compare(*kept, {{0, {1, 2}}}), "");
}

TEST_F(CollectorTest, GivesTheWholeUndoWindowToAMarkThatCameLate) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  ASSERT_TRUE(Remove("v", "v-1").ok());
  // Between its look at the time and its mark the remover was stopped for longer than the window.
  PassUndoWindow();
  ASSERT_TRUE(Collect().ok());
  clock_.reading.since_boot += kUndoWindow - 1;
  ASSERT_TRUE(Collect().ok());
  EXPECT_TRUE(IsListed("v", "v-1"));
  clock_.reading.since_boot += 1;
  const Result<CollectReport> report = Collect();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->dropped_backups.size(), 1u);
  EXPECT_TRUE(Marks().empty());
}

TEST_F(CollectorTest, LetsNothingExpireByAClockAloneWhenItsTimeIsLost) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  ASSERT_TRUE(Remove("v", "v-1").ok());
  ASSERT_TRUE(Collect().ok());
  ASSERT_TRUE(files_.Remove(std::string(kFolder) + "/time").ok());
  clock_.reading.wall += 10 * kUndoWindow;
  EXPECT_TRUE(Collect().status().Is(reason::kRepositoryDamaged));
  EXPECT_TRUE(Remove("v", "v-1").ok()) << "it is removed already";
  EXPECT_TRUE(IsListed("v", "v-1"));
  ASSERT_TRUE(Open()->AdvanceTime(true).ok());
  EXPECT_EQ(Collect()->dropped_backups.size(), 1u);
}

TEST_F(CollectorTest, ForgetsARefusedRemovalWhenTheHoldEnds) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  ASSERT_TRUE(Open()->HoldBackup(Vm("v"), "v-1").ok());
  // The remover saw the hold and was killed before it took its mark back.
  ManifestMark mark = *ParseManifestMark(Marks().at(0));
  mark.kind = ManifestMark::Kind::kRemoved;
  mark.time = 1;
  ASSERT_TRUE(files_.CreateExclusive(NameOf(mark)).ok());
  ASSERT_TRUE(Collect().ok());
  PassUndoWindow();
  ASSERT_TRUE(Open()->ReleaseBackup(Vm("v"), "v-1").ok());
  EXPECT_TRUE(Marks().empty());
  ASSERT_TRUE(Collect().ok());
  EXPECT_TRUE(IsListed("v", "v-1"));
}

TEST_F(CollectorTest, LeavesNothingOfARemovalThatIsTakenBack) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  const std::unique_ptr<Repository> repository = Open();
  // AdvanceTime has its file, then comes the mark; somebody holds the backup at that moment.
  const auto hold = [this](const std::string& path) {
    ManifestMark mark = *ParseManifestMark(path);
    mark.kind = ManifestMark::Kind::kHeld;
    ASSERT_TRUE(files_.CreateExclusive(NameOf(mark)).ok());
  };
  files_.after_create = [&](const std::string&) { files_.after_create = hold; };
  // A collector that listed before the hold came begins the undo window.
  files_.before_remove = [this](const std::string& path) {
    ManifestMark mark = *ParseManifestMark(path);
    mark.kind = ManifestMark::Kind::kExpiring;
    ASSERT_TRUE(files_.Rename(path, NameOf(mark)).ok());
  };
  EXPECT_TRUE(repository->RemoveBackup(Vm("v"), "v-1").Is(reason::kBackupHeld));
  const std::vector<std::string> marks = Marks();
  ASSERT_EQ(marks.size(), 1u);
  EXPECT_TRUE(marks[0].ends_with(".held"));
}

TEST_F(CollectorTest, LeavesAHoldThatIsNotItsOwn) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  ASSERT_TRUE(Open()->HoldBackup(Vm("v"), "v-1").ok());
  const std::string first = Marks().at(0);
  ASSERT_TRUE(Open()->HoldBackup(Vm("v"), "v-1").ok());
  EXPECT_EQ(Marks().size(), 2u);
  // The first is taken back late.
  ASSERT_TRUE(files_.Remove(first).ok());
  EXPECT_TRUE(Remove("v", "v-1").Is(reason::kBackupHeld));
  ASSERT_TRUE(Open()->ReleaseBackup(Vm("v"), "v-1").ok());
  EXPECT_TRUE(Remove("v", "v-1").ok());
}

TEST_F(CollectorTest, TakesAManifestThatItMayNotReadForLocked) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  BackUp("v", "v-2", {{0, {2, 0}}});
  RemoveForGood("v", "v-1");
  files_.denied = Open()->ListManifests(Vm("v"))->at(0).path;
  EXPECT_TRUE(Collect().status().Is(reason::kCollectionBlocked));
  files_.denied.clear();
  EXPECT_TRUE(IsListed("v", "v-1"));
  files_.denied = Open()->ListManifests(Vm("v"))->at(1).path;
  EXPECT_TRUE(Remove("v", "v-2").Is(reason::kRepositoryDenied));
}

}  // namespace
}  // namespace blockferry
