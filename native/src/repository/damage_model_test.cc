// Every kind of file of a repository, damaged in every way that storage damages files: a flipped
// bit, 4 KiB of zeroes, a cut. The check of stored bytes, which has no key, finds each; and no
// restore returns a wrong byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

#include "core/crash_files.h"
#include "core/model_run.h"
#include "core/replayed_random.h"
#include "repository/collector.h"
#include "repository/model_disk.h"
#include "repository/stored_check.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
constexpr uint64_t kDamages = 300;

using Random = std::mt19937_64;

// A repository with a file of every kind.
class Original {
 public:
  Original(uint64_t seed, bool is_encrypted) : random_(seed), ids_(seed) {
    if (is_encrypted) secret_ = Secret{Secret::Kind::kKey, ByteVector(32, std::byte{7})};
    limits_.pack_size = 4 * kBlockSize;
    limits_.index_memory = 1;
    EXPECT_TRUE(Repository::Create(files_, kFolder, secret()).ok());
    Result<std::unique_ptr<Repository>> opened =
        Repository::Open(files_, kFolder, false, limits_, secret());
    EXPECT_TRUE(opened.ok());
    Repository& repository = **opened;
    for (int i = 0; i < 5; ++i) BackUp(repository, i % 2 == 0 ? "v" : "w", false);
    // A session that is taken up again, one that is open, and tombstones that wait for it.
    BackUp(repository, "x", true);
    std::unique_ptr<Session> open =
        *repository.OpenSession({repository.naming().Pseudonym("y"), "point-y", {1, ++number_}});
    EXPECT_TRUE(repository.RemoveBackup(repository.naming().Pseudonym("v"), "v-1").ok());
    CollectOptions options;
    options.token = {1, ++number_};
    options.undo_window = 0;
    const Cancel cancel;
    Progress progress;
    EXPECT_TRUE(Collect(&repository, options, &cancel, &progress).ok());
    // As after a kill.
    kept_ = files_.Copy();
  }

  // The suffix tells the kind; the file `repository` and the time have none.
  std::map<std::string, std::vector<std::string>> FilesByKind() {
    std::map<std::string, std::vector<std::string>> kinds;
    for (const std::string& path : kept_->AllFiles()) {
      const std::string name = path.substr(path.rfind('/') + 1);
      const bool is_unfinished =
          path.find("/sessions/") != std::string::npos && !name.ends_with(".checkpoint");
      if (kept_->Content(path)->empty() || is_unfinished) continue;
      const size_t dot = name.rfind('.');
      kinds[dot == std::string::npos ? name : name.substr(dot)].push_back(path);
    }
    return kinds;
  }

  // Damages one file of the kind and says what comes of it.
  struct Outcome {
    bool is_found = false;
    uint64_t read = 0;    // Backups that read back as they were written,
    uint64_t failed = 0;  // and those that failed with an error.
  };
  Outcome Damage(const std::string& path, unsigned way) {
    Outcome outcome;
    const std::unique_ptr<CrashFiles> files = kept_->Copy();
    Change(files->Content(path), way);
    const Cancel cancel;
    Progress progress;
    RateLimit no_limit;
    Result<StoredReport> report = CheckStored(*files, kFolder, &cancel, &progress, &no_limit);
    EXPECT_TRUE(report.ok()) << report.status().message();
    if (!report.ok()) return outcome;
    outcome.is_found = std::any_of(
        report->damages.begin(), report->damages.end(),
        [&](const StoredDamage& one) { return std::string(kFolder) + "/" + one.path == path; });
    Result<std::unique_ptr<Repository>> opened =
        Repository::Open(*files, kFolder, false, limits_, secret());
    if (!opened.ok()) {
      outcome.failed += written_.size();
      return outcome;
    }
    Result<std::vector<ListedManifest>> listed = (*opened)->ListManifests(std::nullopt);
    EXPECT_TRUE(listed.ok());
    for (const ListedManifest& one : *listed) {
      if (one.is_dropped) continue;
      if (!one.manifest) {
        ++outcome.failed;
        continue;
      }
      bool failed = false;
      const std::string difference = CompareModelDisk(**opened, one.manifest->disks.at(0).root,
                                                      written_.at(one.backup_id), &failed);
      EXPECT_TRUE(difference.empty() || failed) << path << ": " << difference;
      ++(difference.empty() ? outcome.read : outcome.failed);
    }
    return outcome;
  }

 private:
  const Secret* secret() const { return secret_ ? &*secret_ : nullptr; }

  void BackUp(Repository& repository, const std::string& vm, bool is_aborted) {
    const std::string id = vm + "-" + std::to_string(++number_);
    std::unique_ptr<Session> session =
        *repository.OpenSession({repository.naming().Pseudonym(vm), "point-" + id, {1, number_}});
    std::unique_ptr<DiskWriter> writer = *session->OpenDisk("d", kModelDiskSize, std::nullopt);
    ModelDisk disk;
    const uint32_t number = static_cast<uint32_t>(number_);
    for (uint32_t i = 0; i < 6; ++i) {
      // Of the first backup, which is removed, no other needs anything; the one that is aborted
      // fills a pack.
      const bool is_alone = number == 1 || is_aborted;
      const uint32_t family = is_alone ? 1000 * number + i : 1 + i + 20 * (i % 2) * number;
      disk[i * 13] = {family, number % 3};
    }
    for (const auto& [index, content] : disk) {
      EXPECT_TRUE(PutContent(*writer, index, content).ok());
    }
    const std::optional<Digest> root = *writer->Finish();
    if (is_aborted) {
      EXPECT_TRUE(session->Abort().ok());
      return;
    }
    EXPECT_TRUE(session->Commit({id, "", {{"d", root, kModelDiskSize}}, ByteVector(40)}).ok());
    written_[id] = disk;
  }

  void Change(ByteVector* content, unsigned way) {
    const ByteVector before = *content;
    while (*content == before) {
      const size_t at = random_() % content->size();
      if (way == 0) {
        (*content)[at] ^= static_cast<std::byte>(1u << (random_() % 8));
      } else if (way == 1) {
        const size_t end = std::min(content->size(), at + 4096);
        std::fill(content->begin() + static_cast<ptrdiff_t>(at),
                  content->begin() + static_cast<ptrdiff_t>(end), std::byte{0});
      } else {
        content->resize(at);
      }
    }
  }

  Random random_;
  ReplayedRandom ids_;
  std::optional<Secret> secret_;
  RepositoryLimits limits_;
  CrashFiles files_;
  std::unique_ptr<CrashFiles> kept_;
  uint64_t number_ = 0;
  std::map<std::string, ModelDisk> written_;
};

TEST(DamageModel, FindsEveryDamageAndNeverReturnsAWrongByte) {
  const uint64_t seed = NumberFrom("SEED", std::random_device()());
  const uint64_t count = NumberFrom("DAMAGES", kDamages);
  std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  Random random(seed);
  uint64_t ways[3] = {};
  uint64_t read = 0;
  uint64_t failed = 0;
  for (const bool is_encrypted : {false, true}) {
    Original original(seed, is_encrypted);
    const auto kinds = original.FilesByKind();
    for (const char* kind : {".pack", ".manifest", ".index", ".checkpoint", ".sessions"}) {
      ASSERT_TRUE(kinds.contains(kind)) << kind;
    }
    ASSERT_EQ(kinds.contains(".key"), is_encrypted);
    ASSERT_TRUE(kinds.contains("repository") && kinds.contains("time"));
    auto kind = kinds.begin();
    for (uint64_t i = 0; i < count / 2 && !testing::Test::HasFailure(); ++i) {
      if (kind == kinds.end()) kind = kinds.begin();
      const std::string& path = kind->second[random() % kind->second.size()];
      // Of twelve damages ten are flipped bits.
      const unsigned way = random() % 12 < 10 ? 0 : 1 + random() % 2;
      const Original::Outcome outcome = original.Damage(path, way);
      EXPECT_TRUE(outcome.is_found) << path << " way " << way;
      // The index is a cache, and the rest is for writers only.
      const bool is_needed = kind->first == ".pack" || kind->first == ".manifest" ||
                             kind->first == "repository" || kind->first == ".key";
      EXPECT_TRUE(is_needed || outcome.failed == 0) << path;
      ++ways[way];
      read += outcome.read;
      failed += outcome.failed;
      ++kind;
    }
  }
  std::printf("bits: %llu, zeroes: %llu, cuts: %llu, backups read: %llu, refused: %llu\n",
              static_cast<unsigned long long>(ways[0]), static_cast<unsigned long long>(ways[1]),
              static_cast<unsigned long long>(ways[2]), static_cast<unsigned long long>(read),
              static_cast<unsigned long long>(failed));
  EXPECT_GT(read, count);
  EXPECT_GT(failed, count / 20);
}

}  // namespace
}  // namespace blockferry
