// What a crash, a full disk or a failed sync leaves of a repository, at every single call.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <utility>

#include "core/crash_files.h"
#include "core/replayed_random.h"
#include "repository/repository.h"
#include "repository/test_disk.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
constexpr uint64_t kSize = 200 * uint64_t{kBlockSize};
// Set by the tests that run both ways.
bool seal_in_background = false;

struct Scene {
  TestDisk first;
  TestDisk second;
  std::unique_ptr<CrashFiles> before;  // The repository with the first backup.
};

// The index's table is full after each pack, so that files of it are written and merged as well.
Result<std::unique_ptr<Repository>> OpenRepository(FileSystem& files) {
  return Repository::Open(files, kFolder, false, {256 * 1024, 4, seal_in_background, 1, "/"});
}

std::vector<std::string> FilesThatEndWith(CrashFiles& files, std::string_view suffix) {
  std::vector<std::string> paths = files.AllFiles();
  std::erase_if(paths, [&](const std::string& path) { return !path.ends_with(suffix); });
  return paths;
}

void RemoveIndex(CrashFiles& files) {
  for (const std::string& path : FilesThatEndWith(files, ".index")) {
    EXPECT_TRUE(files.Remove(path).ok());
  }
}

Result<Manifest> BackUpFirst(Repository& repository, const TestDisk& disk) {
  ASSIGN_OR_RETURN(std::unique_ptr<Session> session,
                   repository.OpenSession({repository.naming().Pseudonym("vm"), "p1", {1, 1}}));
  ASSIGN_OR_RETURN(std::optional<Digest> root, StoreTestDisk(*session, "d", disk, kSize));
  return session->Commit({"b1", "", {{"d", root, kSize}}, ByteVector(1000)});
}

Result<Manifest> BackUpSecond(Repository& repository, const Scene& scene, uint64_t number) {
  std::string vm = repository.naming().Pseudonym("vm");
  ASSIGN_OR_RETURN(std::unique_ptr<Session> session,
                   repository.OpenSession({vm, "p2", {1, number}}));
  ASSIGN_OR_RETURN(std::vector<ListedManifest> listed, repository.ListManifests(vm));
  if (listed.empty() || !listed[0].manifest) return Status(reason::kBaseMissing, "no base");
  std::optional<Digest> base = listed[0].manifest->disks[0].root;
  ASSIGN_OR_RETURN(std::optional<Digest> root,
                   StoreTestDiskOver(*session, "d", scene.second, scene.first, base, kSize));
  return session->Commit({"b2", "b1", {{"d", root, kSize}}, ByteVector(1000)});
}

// The first disk once more, whole.
Result<Manifest> BackUpThird(Repository& repository, const TestDisk& disk) {
  ASSIGN_OR_RETURN(std::unique_ptr<Session> session,
                   repository.OpenSession({repository.naming().Pseudonym("vm"), "p3", {1, 9}}));
  ASSIGN_OR_RETURN(std::optional<Digest> root, StoreTestDisk(*session, "d", disk, kSize));
  return session->Commit({"b3", "", {{"d", root, kSize}}, ByteVector(1000)});
}

Scene MakeScene() {
  Scene scene;
  for (uint32_t i = 0; i < 12; ++i) scene.first[i * 11] = 100 + i;
  scene.second = scene.first;
  // Half of the changed content is known to the repository already, at other places.
  for (uint32_t i = 0; i < 12; ++i) scene.second[i * 13 + 1] = i % 2 == 0 ? 100 + i : 500 + i;
  scene.before = std::make_unique<CrashFiles>();
  EXPECT_TRUE(Repository::Create(*scene.before, kFolder).ok());
  std::unique_ptr<Repository> repository = *OpenRepository(*scene.before);
  EXPECT_TRUE(BackUpFirst(*repository, scene.first).ok());
  EXPECT_FALSE(FilesThatEndWith(*scene.before, ".index").empty());
  return scene;
}

// Every listed backup must be whole; returns how many there are.
size_t CheckBackups(CrashFiles& files, const Scene& scene) {
  Result<std::unique_ptr<Repository>> repository = OpenRepository(files);
  EXPECT_TRUE(repository.ok()) << repository.status().message();
  if (!repository.ok()) return 0;
  EXPECT_TRUE((*repository)->damaged_packs().empty());
  Result<std::vector<ListedManifest>> listed = (*repository)->ListManifests(std::nullopt);
  EXPECT_TRUE(listed.ok());
  for (const ListedManifest& one : *listed) {
    EXPECT_TRUE(one.manifest.has_value()) << one.damage.message();
    if (!one.manifest) continue;
    const TestDisk& disk = one.manifest->backup_id == "b1" ? scene.first : scene.second;
    EXPECT_EQ(CompareTestDisk(**repository, one.manifest->disks[0].root, disk, kSize), "");
  }
  return listed->size();
}

using Survivor = CrashFiles::Survivor;

// At every call of the session, and at every moment of a sealer that works beside it.
class EveryCall : public testing::TestWithParam<bool> {
 protected:
  EveryCall() { seal_in_background = GetParam(); }
  ~EveryCall() override { seal_in_background = false; }
};

INSTANTIATE_TEST_SUITE_P(Sealing, EveryCall, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "InBackground" : "AtOnce");
});

TEST_P(EveryCall, OfACrashLeavesTheOldOrTheNewBackup) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  Scene scene = MakeScene();
  int crashes = 0;
  int index_crashes = 0;
  int committed_unanswered = 0;
  bool came = true;
  for (uint64_t call = 1; came; ++call) {
    for (Survivor survivor : {Survivor::kProcess, Survivor::kPlatter, Survivor::kMixture}) {
      SCOPED_TRACE("call " + std::to_string(call) + " survivor " +
                   std::to_string(static_cast<int>(survivor)));
      std::unique_ptr<CrashFiles> files = scene.before->Copy();
      bool answered;
      // The same names each time, so that the calls are the same and none is passed over.
      const ReplayedRandom names(seed);
      {
        std::unique_ptr<Repository> repository = *OpenRepository(*files);
        files->CrashAt(call);
        answered = BackUpSecond(*repository, scene, 2).ok();
      }
      came = files->planned_fault_came();
      files->Restart(survivor, seed + static_cast<uint32_t>(call));
      size_t count = CheckBackups(*files, scene);
      EXPECT_GE(count, answered ? 2u : 1u);
      crashes += came ? 1 : 0;
      index_crashes += came && files->planned_fault_path().starts_with("/r/index") ? 1 : 0;
      committed_unanswered += !answered && count == 2 ? 1 : 0;

      // The same point goes on after the crash; what it then answers survives a power cut.
      {
        std::unique_ptr<Repository> repository = *OpenRepository(*files);
        Result<Manifest> again = BackUpSecond(*repository, scene, 3);
        ASSERT_TRUE(again.ok()) << again.status().message();
      }
      for (const std::string& path : files->AllFiles()) {
        EXPECT_FALSE(path.starts_with("/r/sessions/")) << path;
        EXPECT_FALSE(path.ends_with(".index-new")) << path;
      }
      files->Restart(Survivor::kPlatter, 0);
      EXPECT_EQ(CheckBackups(*files, scene), 2u);
    }
  }
  EXPECT_GT(crashes, 100);
  EXPECT_GT(index_crashes, GetParam() ? 10 : 50);
  // In the background the calls are not the same each time, and the last one may be passed over.
  if (!GetParam()) {
    EXPECT_GT(committed_unanswered, 0);
  }
  std::printf("crashes: %d, of these amid the index: %d, committed without an answer: %d\n",
              crashes, index_crashes, committed_unanswered);
}

TEST(Crash, AtAnyCallOfACreationLeavesNoneOrAWholeRepository) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  int crashes = 0;
  bool came = true;
  std::vector<Survivor> survivors(10, Survivor::kMixture);
  survivors.insert(survivors.end(), {Survivor::kProcess, Survivor::kPlatter});
  for (uint64_t call = 1; came; ++call) {
    for (Survivor survivor : survivors) {
      SCOPED_TRACE("call " + std::to_string(call));
      CrashFiles files;
      files.CrashAt(call);
      bool answered = Repository::Create(files, kFolder).ok();
      came = files.planned_fault_came();
      crashes += came ? 1 : 0;
      files.Restart(survivor, seed++);
      Result<std::unique_ptr<Repository>> opened = OpenRepository(files);
      if (!opened.ok()) {
        EXPECT_FALSE(answered);
        EXPECT_TRUE(opened.status().Is(reason::kRepositoryMissing)) << opened.status().message();
        Result<RepositoryInfo> again = Repository::Create(files, kFolder);
        EXPECT_TRUE(again.ok()) << again.status().message();
        EXPECT_TRUE(OpenRepository(files).ok());
      }
    }
  }
  EXPECT_GT(crashes, 3 * 260);
}

// Does something else just before the file `repository` is renamed into place.
class InterruptedFiles : public CrashFiles {
 public:
  Status RenameNoReplace(const std::string& from, const std::string& to) override {
    if (interruption) std::exchange(interruption, nullptr)();
    return CrashFiles::RenameNoReplace(from, to);
  }
  std::function<void()> interruption;
};

TEST(Creation, AmidAnotherThatFailsAtAnyCallIsWhole) {
  bool came = true;
  for (uint64_t call = 1; came; ++call) {
    SCOPED_TRACE("call " + std::to_string(call));
    InterruptedFiles files;
    files.interruption = [&] {
      files.FailAt(call, Status(reason::kRepositoryFull, "planned"));
      static_cast<void>(Repository::Create(files, kFolder).ok());
      came = files.planned_fault_came();
      files.FailAt(0, {});
    };
    Result<RepositoryInfo> created = Repository::Create(files, kFolder);
    EXPECT_TRUE(created.ok() || created.status().Is(reason::kRepositoryExists));
    Result<std::unique_ptr<Repository>> opened = OpenRepository(files);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    if (created.ok()) {
      EXPECT_EQ((*opened)->info().repository_id, created->repository_id);
    }
  }
}

TEST_P(EveryCall, OfAFullDiskFailsOnlyThisBackup) {
  Scene scene = MakeScene();
  int failures = 0;
  int index_failures = 0;
  bool came = true;
  for (uint64_t call = 1; came; ++call) {
    for (std::string_view reason : {reason::kRepositoryFull, reason::kRepositoryUnreachable}) {
      SCOPED_TRACE("call " + std::to_string(call) + " " + std::string(reason));
      std::unique_ptr<CrashFiles> files = scene.before->Copy();
      {
        std::unique_ptr<Repository> repository = *OpenRepository(*files);
        files->FailAt(call, Status(reason, "planned"));
        Result<Manifest> manifest = BackUpSecond(*repository, scene, 2);
        came = files->planned_fault_came();
        // The index is a cache: what befalls it is no reason to fail.
        if (files->planned_fault_path().starts_with("/r/index")) {
          ++index_failures;
          EXPECT_TRUE(manifest.ok()) << manifest.status().message();
        }
        if (!manifest.ok()) {
          ++failures;
          EXPECT_TRUE(manifest.status().Is(reason)) << manifest.status().message();
        }
        files->FailAt(0, {});
        // The same process goes on; the failed file is not synced again (CrashFiles would abort).
        Result<Manifest> again = BackUpSecond(*repository, scene, 3);
        ASSERT_TRUE(again.ok()) << again.status().message();
      }
      files->Restart(Survivor::kPlatter, 0);
      EXPECT_EQ(CheckBackups(*files, scene), 2u);
    }
  }
  EXPECT_GT(failures, 60);
  EXPECT_GT(index_failures, GetParam() ? 3 : 30);
}

// Cannot open packs for a while, as when too many files are open.
class UnreachablePacks : public CrashFiles {
 public:
  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    if (unreachable && path.ends_with(".pack")) return FileError("open", path, EMFILE);
    return CrashFiles::OpenForRead(path);
  }
  bool unreachable = false;
};

TEST(Packs, ThatCannotBeReachedAreNotTakenForLostOnes) {
  UnreachablePacks files;
  ASSERT_TRUE(Repository::Create(files, kFolder).ok());
  TestDisk disk = {{3, 1}};
  std::optional<Digest> root = BackUpFirst(**OpenRepository(files), disk)->disks[0].root;
  files.unreachable = true;
  std::unique_ptr<Repository> repository = *OpenRepository(files);
  MapReader reader(repository.get(), root, BlockCountOf(kSize));
  Status lacking = reader.Find(3).status();
  EXPECT_TRUE(lacking.Is(reason::kRepositoryUnreachable)) << lacking.message();
  files.unreachable = false;
  ASSERT_TRUE(repository->Refresh().ok());
  EXPECT_EQ(CompareTestDisk(*repository, root, disk, kSize), "");
}

TEST(BitFlip, AnywhereInAPackIsFoundAndNeverReturned) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  Scene scene = MakeScene();
  const std::vector<std::string> packs = FilesThatEndWith(*scene.before, ".pack");
  ASSERT_GT(packs.size(), 1u);
  for (int round = 0; round < 300; ++round) {
    std::unique_ptr<CrashFiles> files = scene.before->Copy();
    ByteVector& content = *files->Content(packs[random() % packs.size()]);
    // A third at the ends, where header, table and footer are.
    size_t bit = random() % (content.size() * 8);
    size_t end_size = std::min<size_t>(content.size(), 1000);
    if (round % 3 == 0) bit = content.size() * 8 - 1 - random() % (end_size * 8);
    if (round % 3 == 1) bit = random() % (end_size * 8);
    content[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    // Where a file of the index covers the pack, nobody needs its header and its table.
    const bool has_index = round % 2 == 0;
    if (!has_index) RemoveIndex(*files);
    std::unique_ptr<Repository> repository = *OpenRepository(*files);
    Manifest manifest = *repository->ListManifests(std::nullopt)->at(0).manifest;
    std::string found = CompareTestDisk(*repository, manifest.disks[0].root, scene.first, kSize);
    EXPECT_TRUE(has_index || found != "") << "bit " << bit;
    EXPECT_EQ(found.find("differs"), std::string::npos) << found;
  }
  for (int round = 0; round < 50; ++round) {
    std::unique_ptr<CrashFiles> files = scene.before->Copy();
    ByteVector& content = *files->Content(packs[random() % packs.size()]);
    content.resize(random() % content.size());
    const bool has_index = round % 2 == 0;
    if (!has_index) RemoveIndex(*files);
    std::unique_ptr<Repository> repository = *OpenRepository(*files);
    EXPECT_TRUE(has_index || repository->damaged_packs().size() == 1);
    Manifest manifest = *repository->ListManifests(std::nullopt)->at(0).manifest;
    const std::string found =
        CompareTestDisk(*repository, manifest.disks[0].root, scene.first, kSize);
    EXPECT_TRUE(has_index || found != "");
    EXPECT_EQ(found.find("differs"), std::string::npos) << found;
  }
}

TEST(BitFlip, AnywhereInTheIndexIsHealedFromThePacks) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  Scene scene = MakeScene();
  const std::vector<std::string> paths = FilesThatEndWith(*scene.before, ".index");
  Scene other = MakeScene();
  int removed = 0;
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(round);
    std::unique_ptr<CrashFiles> files = scene.before->Copy();
    const std::string& path = paths[random() % paths.size()];
    ByteVector& content = *files->Content(path);
    const auto flip = [&] {
      content[random() % content.size()] ^= static_cast<std::byte>(1 << random() % 8);
    };
    std::unique_ptr<Repository> repository;
    switch (round % 5) {
      case 0:
        flip();
        break;
      case 1:
        content.resize(random() % content.size());
        break;
      case 2:  // Of another repository, under the right name.
        content = *other.before->Content(FilesThatEndWith(*other.before, ".index")[0]);
        break;
      case 3:  // Amid the work, where it hurts: all pages of entries and directories.
        repository = *OpenRepository(*files);
        for (size_t at = 4096; at + 512 < content.size(); at += 4096)
          content[at + 40] ^= std::byte{4};
        break;
      case 4:
        repository = *OpenRepository(*files);
        content.resize(random() % content.size());
        break;
    }
    if (repository == nullptr) repository = *OpenRepository(*files);
    Manifest manifest = *repository->ListManifests(std::nullopt)->at(0).manifest;
    EXPECT_EQ(CompareTestDisk(*repository, manifest.disks[0].root, scene.first, kSize), "");
    // The next backup as well, whatever the reader has seen.
    EXPECT_TRUE(BackUpSecond(*repository, scene, 2).ok());
    const std::vector<std::string> left = FilesThatEndWith(*files, ".index");
    removed += std::find(left.begin(), left.end(), path) == left.end() ? 1 : 0;
    repository.reset();
    EXPECT_EQ(CheckBackups(*files, scene), 2u);
  }
  EXPECT_GT(removed, 60);
}

TEST(Index, ThatNamesPacksThatAreGoneNamesNoneOfTheirChunks) {
  Scene scene = MakeScene();
  const std::vector<std::string> packs = FilesThatEndWith(*scene.before, ".pack");
  for (const std::string& gone : packs) {
    std::unique_ptr<CrashFiles> files = scene.before->Copy();
    ASSERT_TRUE(files->Remove(gone).ok());
    std::unique_ptr<Repository> repository = *OpenRepository(*files);
    EXPECT_EQ(repository->info().pack_count, packs.size() - 1);
    Manifest manifest = *repository->ListManifests(std::nullopt)->at(0).manifest;
    const std::string found =
        CompareTestDisk(*repository, manifest.disks[0].root, scene.first, kSize);
    EXPECT_NE(found.find("no pack holds it"), std::string::npos) << found;
    // The same content is stored again, and the first backup is whole once more.
    ASSERT_TRUE(BackUpThird(*repository, scene.first).ok());
    EXPECT_EQ(CompareTestDisk(*repository, manifest.disks[0].root, scene.first, kSize), "");
  }
}

// Counts the tables of packs that are read.
class CountedTables : public CrashFiles {
 public:
  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    if (path.ends_with(".pack")) ++count;
    return CrashFiles::OpenForRead(path);
  }
  int count = 0;
};

TEST(Index, SparesTheTablesOfThePacksItCovers) {
  CountedTables files;
  ASSERT_TRUE(Repository::Create(files, kFolder).ok());
  TestDisk disk;
  for (uint32_t i = 0; i < 40; ++i) disk[i * 4] = 100 + i;
  ASSERT_TRUE(BackUpFirst(**OpenRepository(files), disk).ok());
  files.count = 0;
  std::unique_ptr<Repository> repository = *OpenRepository(files);
  // The last table stays in memory, and is gone with the process.
  EXPECT_LE(files.count, 1);
  EXPECT_GT(repository->info().pack_count, 8u);
}

TEST(Index, OfARepositoryThatIsOnlyReadLeavesNoTrace) {
  Scene scene = MakeScene();
  RemoveIndex(*scene.before);
  const std::vector<std::string> before = scene.before->AllFiles();
  Result<std::unique_ptr<Repository>> repository =
      Repository::Open(*scene.before, kFolder, true, {256 * 1024, 4, false, 1, "/"});
  ASSERT_TRUE(repository.ok()) << repository.status().message();
  Manifest manifest = *(*repository)->ListManifests(std::nullopt)->at(0).manifest;
  EXPECT_EQ(CompareTestDisk(**repository, manifest.disks[0].root, scene.first, kSize), "");
  EXPECT_EQ(scene.before->AllFiles(), before);
}

}  // namespace
}  // namespace blockferry
