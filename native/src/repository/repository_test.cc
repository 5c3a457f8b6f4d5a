#include "repository/repository.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "core/crash_files.h"
#include "repository/test_disk.h"

namespace blockferry {
namespace {

// Ends the process instead of making the call with that number among those that change something.
class KillingFiles : public FileSystem {
 public:
  explicit KillingFiles(int call) : calls_left_(call) {}

  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    return SystemFiles().OpenForRead(path);
  }
  Result<std::unique_ptr<File>> CreateExclusive(const std::string& path) override {
    Count();
    ASSIGN_OR_RETURN(std::unique_ptr<File> file, SystemFiles().CreateExclusive(path));
    return std::unique_ptr<File>(std::make_unique<Handle>(this, std::move(file)));
  }
  Status CreateFolder(const std::string& path) override {
    Count();
    return SystemFiles().CreateFolder(path);
  }
  Status Rename(const std::string& from, const std::string& to) override {
    Count();
    return SystemFiles().Rename(from, to);
  }
  Status RenameNoReplace(const std::string& from, const std::string& to) override {
    Count();
    return SystemFiles().RenameNoReplace(from, to);
  }
  Status SyncFolder(const std::string& path) override {
    Count();
    return SystemFiles().SyncFolder(path);
  }
  Result<std::vector<FolderEntry>> List(const std::string& path) override {
    return SystemFiles().List(path);
  }
  Status Remove(const std::string& path) override {
    Count();
    return SystemFiles().Remove(path);
  }

  Status RemoveFolder(const std::string& path) override {
    Count();
    return SystemFiles().RemoveFolder(path);
  }

 private:
  class Handle : public File {
   public:
    Handle(KillingFiles* files, std::unique_ptr<File> file)
        : files_(files), file_(std::move(file)) {}
    Result<size_t> ReadAt(uint64_t offset, MutableBytes out) override {
      return file_->ReadAt(offset, out);
    }
    Status Append(Bytes bytes) override {
      files_->Count();
      return file_->Append(bytes);
    }
    Status Sync() override {
      files_->Count();
      return file_->Sync();
    }
    Result<uint64_t> Size() override { return file_->Size(); }

   private:
    KillingFiles* files_;
    std::unique_ptr<File> file_;
  };

  void Count() {
    if (--calls_left_ == 0) _exit(9);
  }

  int calls_left_;
};

// On the machine's own file system.
class RepositoryTest : public testing::Test {
 protected:
  RepositoryTest() {
    char pattern[] = "/tmp/blockferry-repository-XXXXXX";
    EXPECT_NE(mkdtemp(pattern), nullptr);
    parent_ = pattern;
    folder_ = parent_ + "/r";
  }
  ~RepositoryTest() override { std::filesystem::remove_all(parent_); }

  std::unique_ptr<Repository> CreateAndOpen() {
    EXPECT_TRUE(Repository::Create(SystemFiles(), folder_).ok());
    return *Repository::Open(SystemFiles(), folder_, false);
  }
  Status OpenStatus() { return Repository::Open(SystemFiles(), folder_, false).status(); }
  std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  void Write(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
  }

  std::string parent_;
  std::string folder_;
};

TEST_F(RepositoryTest, IsMadeInAMissingOrEmptyFolderOnly) {
  EXPECT_TRUE(OpenStatus().Is(reason::kRepositoryMissing));
  Result<RepositoryInfo> created = Repository::Create(SystemFiles(), folder_);
  ASSERT_TRUE(created.ok());
  EXPECT_EQ(created->format_version, 1u);
  EXPECT_EQ(created->block_size, 65536u);
  EXPECT_TRUE(Repository::Create(SystemFiles(), folder_).status().Is(reason::kRepositoryExists));
  EXPECT_EQ((*Repository::Open(SystemFiles(), folder_, true))->info().repository_id,
            created->repository_id);
  std::filesystem::create_directory(parent_ + "/empty");
  EXPECT_TRUE(Repository::Create(SystemFiles(), parent_ + "/empty").ok());
  EXPECT_TRUE(Repository::Create(SystemFiles(), parent_).status().Is(reason::kRepositoryExists));
  EXPECT_TRUE(Repository::Create(SystemFiles(), parent_ + "/a/b/c")
                  .status()
                  .Is(reason::kRepositoryMissing));
  Write(parent_ + "/file", "");
  EXPECT_TRUE(
      Repository::Create(SystemFiles(), parent_ + "/file").status().Is(reason::kRepositoryExists));
  EXPECT_TRUE(Repository::Open(SystemFiles(), parent_ + "/file", false)
                  .status()
                  .Is(reason::kRepositoryMissing));
}

TEST_F(RepositoryTest, IsNotMadeOverOneThatLostItsFile) {
  std::unique_ptr<Repository> repository = CreateAndOpen();
  ASSERT_TRUE(repository->DrawIncarnation().ok());
  std::filesystem::remove(folder_ + "/repository");
  EXPECT_TRUE(Repository::Create(SystemFiles(), folder_).status().Is(reason::kRepositoryExists));
}

TEST_F(RepositoryTest, RefusesWhatItCannotKnow) {
  CreateAndOpen();
  std::string good = Read(folder_ + "/repository");
  ASSERT_EQ(good.size(), 128u);
  auto with = [&](size_t at, char value) {
    std::string bad = good;
    bad[at] = value;
    Write(folder_ + "/repository", bad);
    return OpenStatus();
  };
  EXPECT_TRUE(with(8, 2).Is(reason::kRepositoryTooNew));
  EXPECT_TRUE(with(8, 0).Is(reason::kRepositoryDamaged));
  EXPECT_TRUE(with(0, 'x').Is(reason::kRepositoryDamaged));
  for (size_t at = 12; at < good.size(); ++at) {
    EXPECT_TRUE(with(at, static_cast<char>(good[at] ^ 1)).Is(reason::kRepositoryDamaged)) << at;
  }
  Write(folder_ + "/repository", good.substr(0, 127));
  EXPECT_TRUE(OpenStatus().Is(reason::kRepositoryDamaged));
  Write(folder_ + "/repository", good);
  EXPECT_TRUE(OpenStatus().ok());
  // A file system that is mounted in part must not look like a repository without packs.
  std::filesystem::remove(folder_ + "/packs/7f");
  EXPECT_TRUE(OpenStatus().Is(reason::kRepositoryDamaged));
}

TEST_F(RepositoryTest, OpenedForReadingWritesNothing) {
  CreateAndOpen();
  std::unique_ptr<Repository> repository = *Repository::Open(SystemFiles(), folder_, true);
  std::string vm = repository->naming().Pseudonym("vm");
  EXPECT_TRUE(repository->DrawIncarnation().status().Is(reason::kRepositoryReadOnly));
  EXPECT_TRUE(repository->OpenSession({vm, "p", {1, 1}}).status().Is(reason::kRepositoryReadOnly));
}

TEST_F(RepositoryTest, DrawsEachIncarnationOnce) {
  std::unique_ptr<Repository> one = CreateAndOpen();
  std::unique_ptr<Repository> other = *Repository::Open(SystemFiles(), folder_, false);
  EXPECT_EQ(*one->DrawIncarnation(), 1u);
  std::vector<uint64_t> drawn[2];
  std::thread threads[2];
  for (int i = 0; i < 2; ++i) {
    threads[i] = std::thread([&, i] {
      Repository& repository = i == 0 ? *one : *other;
      for (int n = 0; n < 20; ++n) drawn[i].push_back(*repository.DrawIncarnation());
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint64_t> all(drawn[0].begin(), drawn[0].end());
  all.insert(drawn[1].begin(), drawn[1].end());
  EXPECT_EQ(all.size(), 40u);
  EXPECT_EQ(*all.begin(), 2u);
  EXPECT_EQ(*all.rbegin(), 41u);
}

TEST_F(RepositoryTest, GivesAVmTheSamePseudonymHereAndAnotherElsewhere) {
  std::unique_ptr<Repository> repository = CreateAndOpen();
  std::string vm = repository->naming().Pseudonym("uuid-1");
  EXPECT_TRUE(IsPseudonym(vm));
  repository = *Repository::Open(SystemFiles(), folder_, true);
  EXPECT_EQ(repository->naming().Pseudonym("uuid-1"), vm);
  EXPECT_NE(repository->naming().Pseudonym("uuid-2"), vm);
  folder_ = parent_ + "/other";
  EXPECT_NE(CreateAndOpen()->naming().Pseudonym("uuid-1"), vm);
}

// The content of a chunk that has the bytes of a node is not a node: their names differ.
TEST_F(RepositoryTest, NeverTakesAChunkForAMapNode) {
  std::unique_ptr<Repository> repository = CreateAndOpen();
  ByteVector bytes(kBlockSize, std::byte{1});
  EXPECT_NE(repository->naming().ChunkName(bytes), repository->naming().NodeName(bytes));
}

TEST_F(RepositoryTest, SeesWhatAnotherProcessStored) {
  std::unique_ptr<Repository> writer = CreateAndOpen();
  std::unique_ptr<Repository> reader = *Repository::Open(SystemFiles(), folder_, true);
  std::string vm = writer->naming().Pseudonym("vm");
  TestDisk disk = {{0, 1}, {5, 2}, {99, 3}};
  constexpr uint64_t kSize = 100 * uint64_t{kBlockSize} - 1000;
  std::unique_ptr<Session> session = *writer->OpenSession({vm, "p", {1, 1}});
  Result<std::optional<Digest>> root = StoreTestDisk(*session, "d", disk, kSize);
  ASSERT_TRUE(root.ok());
  ASSERT_TRUE(session->Commit({"b", "", {{"d", *root, kSize}}, {}}).ok());
  ASSERT_EQ(reader->ListManifests(vm)->size(), 1u);
  // Nobody told the reader: what it does not know makes it list the packs again.
  EXPECT_EQ(CompareTestDisk(*reader, *root, disk, kSize), "");
}

TEST_F(RepositoryTest, ReportsADamagedManifestAndListsTheOthers) {
  std::unique_ptr<Repository> repository = CreateAndOpen();
  std::string vm = repository->naming().Pseudonym("vm");
  for (uint64_t i = 1; i <= 3; ++i) {
    std::string number = std::to_string(i);
    std::unique_ptr<Session> session = *repository->OpenSession({vm, "p" + number, {1, i}});
    ASSERT_TRUE(session->Commit({"b" + number, "", {}, {}}).ok());
  }
  std::string folder = folder_ + "/manifests/" + vm + "/";
  std::string path = folder + "00000002-b2.manifest";
  std::string content = Read(path);
  content[100] ^= 1;
  Write(path, content);
  // A whole manifest under another backup's name is as bad.
  Write(folder + "00000004-b4.manifest", Read(folder + "00000003-b3.manifest"));
  Result<std::vector<ListedManifest>> listed = repository->ListManifests(std::nullopt);
  ASSERT_TRUE(listed.ok());
  ASSERT_EQ(listed->size(), 4u);
  EXPECT_EQ((*listed)[0].manifest->backup_id, "b1");
  EXPECT_TRUE((*listed)[1].damage.Is(reason::kManifestCorrupt));
  EXPECT_EQ((*listed)[1].path, path);
  EXPECT_EQ((*listed)[2].manifest->sequence, 3u);
  EXPECT_TRUE((*listed)[3].damage.Is(reason::kManifestCorrupt));
  std::unique_ptr<Session> session = *repository->OpenSession({vm, "p5", {1, 5}});
  EXPECT_EQ(session->Commit({"b5", "", {}, {}})->sequence, 5u);
}

TEST_F(RepositoryTest, GoesOnWithoutADamagedPack) {
  std::unique_ptr<Repository> repository = CreateAndOpen();
  std::string vm = repository->naming().Pseudonym("vm");
  constexpr uint64_t kSize = 10 * uint64_t{kBlockSize};
  std::vector<std::optional<Digest>> roots;
  std::vector<TestDisk> disks = {{{0, 1}, {1, 2}}, {{0, 3}, {1, 4}}};
  std::vector<std::string> packs;
  for (uint64_t i = 0; i < 2; ++i) {
    std::unique_ptr<Session> session =
        *repository->OpenSession({vm, "p" + std::to_string(i), {1, i}});
    roots.push_back(*StoreTestDisk(*session, "d", disks[i], kSize));
    ASSERT_TRUE(session->Commit({"b" + std::to_string(i), "", {{"d", roots[i], kSize}}, {}}).ok());
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ + "/packs")) {
    if (entry.is_regular_file()) packs.push_back(entry.path());
  }
  ASSERT_EQ(packs.size(), 2u);
  std::filesystem::resize_file(packs[0], 1000);
  repository = *Repository::Open(SystemFiles(), folder_, false);
  ASSERT_EQ(repository->damaged_packs().size(), 1u);
  EXPECT_EQ(repository->damaged_packs()[0].path, packs[0]);
  int whole = 0;
  for (int i = 0; i < 2; ++i) {
    MapReader reader(repository.get(), roots[i], BlockCountOf(kSize));
    Result<std::optional<Digest>> name = reader.Find(0);
    if (name.ok()) {
      EXPECT_EQ(CompareTestDisk(*repository, roots[i], disks[i], kSize), "");
      ++whole;
    } else {
      EXPECT_TRUE(name.status().Is(reason::kChunkMissing));
    }
  }
  EXPECT_EQ(whole, 1);
}

// The real program is killed at every step of a backup on the real file system.
TEST_F(RepositoryTest, SurvivesBeingKilledAtAnyCall) {
  std::unique_ptr<Repository> repository = CreateAndOpen();
  std::string vm = repository->naming().Pseudonym("vm");
  constexpr uint64_t kSize = 64 * uint64_t{kBlockSize};
  size_t committed = 0;
  bool killed = true;
  int kills = 0;
  for (int call = 1; killed; ++call) {
    TestDisk disk;
    for (uint32_t i = 0; i < 10; ++i) disk[i * 5] = static_cast<uint32_t>(call) * 100 + i;
    std::string number = std::to_string(call);
    pid_t child = fork();
    if (child == 0) {
      KillingFiles files(call);
      auto own = Repository::Open(files, folder_, false, {128 * 1024, 4});
      auto session = (*own)->OpenSession({vm, "p" + number, {1, static_cast<uint64_t>(call)}});
      if (!session.ok()) _exit(1);
      auto root = StoreTestDisk(**session, "d", disk, kSize);
      bool done =
          root.ok() && (*session)->Commit({"b" + number, "", {{"d", *root, kSize}}, {}}).ok();
      _exit(done ? 0 : 1);
    }
    int state = 0;
    ASSERT_EQ(waitpid(child, &state, 0), child);
    ASSERT_TRUE(WIFEXITED(state));
    killed = WEXITSTATUS(state) == 9;
    kills += killed ? 1 : 0;
    ASSERT_TRUE(killed || WEXITSTATUS(state) == 0) << WEXITSTATUS(state);
    ASSERT_TRUE(repository->Refresh().ok());
    Result<std::vector<ListedManifest>> listed = repository->ListManifests(vm);
    ASSERT_TRUE(listed.ok());
    ASSERT_LE(listed->size(), committed + 1);
    ASSERT_TRUE(killed || listed->size() == committed + 1);
    if (listed->size() > committed) {
      ASSERT_TRUE(listed->back().manifest.has_value());
      EXPECT_EQ(CompareTestDisk(*repository, listed->back().manifest->disks[0].root, disk, kSize),
                "");
    }
    committed = listed->size();
  }
  EXPECT_GT(kills, 40);
}

}  // namespace
}  // namespace blockferry
