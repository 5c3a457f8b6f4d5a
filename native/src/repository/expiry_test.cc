// Removed backups, their windows and locks, in single, chosen situations.
#include "repository/expiry.h"

#include <gtest/gtest.h>

#include "repository/collector_fixture.h"

namespace blockferry {
namespace {

constexpr uint64_t kDay = 24 * 3600;

class ExpiryTest : public CollectorTest {
 protected:
  // The machine was off for so long that its clock is not believed.
  void ComeBackLate() { clock_.reading = {clock_.reading.wall + 10 * kDay, {std::byte{2}}, 50}; }
};

TEST_F(ExpiryTest, KeepsABackupThatWasUndeletedWhileItsMarkGotAnotherName) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  ASSERT_TRUE(Remove("v", "v-1").ok());
  const std::string vm = Vm("v");
  const std::unique_ptr<Repository> repository = Open();
  files_.amid_list = [&](const std::string&) { ASSERT_TRUE(Collect().ok()); };
  ASSERT_TRUE(repository->UndeleteBackup(vm, "v-1").ok());
  EXPECT_FALSE(files_.amid_list);
  PassUndoWindow();
  ASSERT_TRUE(Collect().ok());
  EXPECT_TRUE(IsListed("v", "v-1"));
}

TEST_F(ExpiryTest, GivesNoNameAgainWhileThereIsAMarkOfIt) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  RemoveForGood("v", "v-1");
  files_.stuck = ".dropped";
  EXPECT_FALSE(Collect().ok());
  files_.stuck.clear();
  BackUp("v", "v-1", {{0, {2, 0}}});
  EXPECT_TRUE(IsListed("v", "v-1"));
  ASSERT_TRUE(Collect().ok());
  EXPECT_TRUE(IsListed("v", "v-1"));
}

TEST_F(ExpiryTest, RemovesNoNewBackupOfTheSameNameWhenItWasFenced) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  RemoveForGood("v", "v-1");
  files_.before_take = [&](const std::string&) {
    ASSERT_TRUE(Collect().ok());
    BackUp("v", "v-1", {{0, {2, 0}}});
    ASSERT_TRUE(IsListed("v", "v-1"));
  };
  EXPECT_TRUE(Collect().status().Is(reason::kRunFenced));
  EXPECT_TRUE(IsListed("v", "v-1"));
}

TEST_F(ExpiryTest, EndsNoLockWhenTheClockIsConfirmed) {
  ComeBackLate();
  BackUp("v", "v-1", {{0, {1, 0}}}, 7 * kDay);
  ASSERT_TRUE(Open()->AdvanceTime(true).ok());
  EXPECT_TRUE(Remove("v", "v-1").Is(reason::kBackupLocked));
  clock_.reading.since_boot += 7 * kDay;
  EXPECT_TRUE(Remove("v", "v-1").ok());
}

TEST_F(ExpiryTest, EndsNoUndoWindowWhenTheClockIsConfirmed) {
  ComeBackLate();
  BackUp("v", "v-1", {{0, {1, 0}}});
  ASSERT_TRUE(Remove("v", "v-1").ok());
  ASSERT_TRUE(Collect().ok());
  ASSERT_TRUE(Open()->AdvanceTime(true).ok());
  ASSERT_TRUE(Collect().ok());
  EXPECT_TRUE(IsListed("v", "v-1"));
  PassUndoWindow();
  ASSERT_TRUE(Collect().ok());
  EXPECT_FALSE(IsListed("v", "v-1"));
}

TEST_F(ExpiryTest, ChangesNothingInADryRun) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  ASSERT_TRUE(Remove("v", "v-1").ok());
  reserve_size_ = 4096;
  ASSERT_TRUE(Open()->MakeReserve().ok());
  const std::vector<std::string> before = files_.AllFiles();
  const ByteVector time = *files_.Content(std::string(kFolder) + "/time");
  clock_.reading.since_boot += 5;
  ASSERT_TRUE(Collect({}, true).ok());
  EXPECT_EQ(files_.AllFiles(), before);
  EXPECT_EQ(*files_.Content(std::string(kFolder) + "/time"), time);
}

TEST_F(ExpiryTest, TakesAManifestThatIsTooLongForACorruptOne) {
  BackUp("v", "v-1", {{0, {1, 0}}});
  const std::string path = Open()->ListManifests(Vm("v"))->at(0).path;
  files_.Content(path)->resize(size_t{64} << 20);
  const Status blocked = Collect().status();
  EXPECT_TRUE(blocked.Is(reason::kCollectionBlocked));
  EXPECT_NE(blocked.message().find("or remove the backup"), std::string::npos);
  EXPECT_TRUE(Remove("v", "v-1").ok());
}

}  // namespace
}  // namespace blockferry
