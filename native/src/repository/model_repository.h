// What models do to a repository, and what has to be true of it afterwards. Every backup is named
// after the seed of its disk, so that whoever finds it knows what it has to hold.
#ifndef BLOCKFERRY_REPOSITORY_MODEL_REPOSITORY_H_
#define BLOCKFERRY_REPOSITORY_MODEL_REPOSITORY_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/clock.h"
#include "core/model_run.h"
#include "repository/collector.h"
#include "repository/model_disk.h"

namespace blockferry {

inline constexpr uint64_t kModelUndoWindow = 1000;  // Seconds.

// Few contents at few places, so that disks share blocks and differ by pages.
inline ModelDisk DiskOf(uint64_t seed) {
  std::mt19937_64 random(seed);
  ModelDisk disk;
  const unsigned count = 4 + static_cast<unsigned>(random() % 5);
  for (unsigned i = 0; i < count; ++i) {
    const uint64_t index = random() % 2 == 0 ? random() % 5 : 62 + random() % 8;
    disk[index] = {1 + static_cast<uint32_t>(random() % 9), static_cast<uint32_t>(random() % 4)};
  }
  return disk;
}

inline std::string IdOf(uint64_t seed) { return "b" + std::to_string(seed); }

class ModelRepository {
 public:
  ModelRepository(FileSystem& files, std::string folder, Clock& clock)
      : files_(files), folder_(std::move(folder)), clock_(clock) {}

  bool seals_in_background = false;

  Result<std::unique_ptr<Repository>> Open() const {
    RepositoryLimits limits;
    limits.pack_size = 3 * kBlockSize;
    limits.open_pack_count = 2;
    limits.index_memory = 1;  // A file of the index for each pack, so that files are merged.
    limits.seal_in_background = seals_in_background;
    limits.clock = &clock_;
    return Repository::Open(files_, folder_, false, limits);
  }

  // Over the newest backup of the VM that is not removed.
  Status BackUp(const std::string& vm, uint64_t seed, uint64_t number) const {
    ASSIGN_OR_RETURN(const std::unique_ptr<Repository> repository, Open());
    const std::string pseudonym = repository->naming().Pseudonym(vm);
    ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                     repository->OpenSession({pseudonym, "point-" + IdOf(seed), {1, number}}));
    ASSIGN_OR_RETURN(const std::vector<ListedManifest> listed,
                     repository->ListManifests(pseudonym));
    ModelDisk before;
    std::optional<Digest> base_root;
    CommitOptions options;
    for (const ListedManifest& one : listed) {
      if (!one.manifest || one.removed_time || one.is_dropped) continue;
      options.base_backup_id = one.backup_id;
      base_root = one.manifest->disks.at(0).root;
      before = DiskOf(SeedOf(one.backup_id));
    }
    ASSIGN_OR_RETURN(const std::optional<Digest> root,
                     StoreModelDisk(*session, DiskOf(seed), before, base_root, nullptr));
    options.backup_id = IdOf(seed);
    options.disks.push_back({"d", root, kModelDiskSize});
    return ToStatus(session->Commit(options));
  }

  Status Remove(const std::string& vm, uint64_t seed) const {
    ASSIGN_OR_RETURN(const std::unique_ptr<Repository> repository, Open());
    return repository->RemoveBackup(repository->naming().Pseudonym(vm), IdOf(seed));
  }

  Status Undelete(const std::string& vm, uint64_t seed) const {
    ASSIGN_OR_RETURN(const std::unique_ptr<Repository> repository, Open());
    return repository->UndeleteBackup(repository->naming().Pseudonym(vm), IdOf(seed));
  }

  enum class Fences { kNobody, kEverySession };

  Result<CollectReport> Collect(uint64_t number, Fences fences, bool dry_run = false) const {
    ASSIGN_OR_RETURN(const std::unique_ptr<Repository> repository, Open());
    CollectOptions options;
    options.token = {1, number};
    options.undo_window = kModelUndoWindow;
    options.memory = 1;
    options.dry_run = dry_run;
    if (fences == Fences::kEverySession) {
      ASSIGN_OR_RETURN(options.dead_sessions, repository->ListOpenSessions());
    }
    const Cancel cancel;
    Progress progress;
    return blockferry::Collect(repository.get(), options, &cancel, &progress);
  }

  // Reads all that is listed; gives the seeds of what is not removed, with their sequence numbers.
  std::map<uint64_t, uint64_t> Prove() const {
    std::map<uint64_t, uint64_t> kept;
    Result<std::unique_ptr<Repository>> repository = Open();
    EXPECT_TRUE(repository.ok()) << repository.status().message();
    if (!repository.ok()) return kept;
    EXPECT_TRUE((*repository)->damaged_packs().empty());
    Result<std::vector<ListedManifest>> listed = (*repository)->ListManifests(std::nullopt);
    EXPECT_TRUE(listed.ok()) << listed.status().message();
    if (!listed.ok()) return kept;
    for (const ListedManifest& one : *listed) {
      EXPECT_TRUE(one.manifest.has_value()) << one.damage.message();
      if (!one.manifest || one.is_dropped) continue;
      if (!one.removed_time) kept[SeedOf(one.backup_id)] = one.sequence;
      bool failed = false;
      EXPECT_EQ(CompareModelDisk(**repository, one.manifest->disks.at(0).root,
                                 DiskOf(SeedOf(one.backup_id)), &failed),
                "")
          << one.backup_id;
    }
    return kept;
  }

  // Once nothing runs any more, a few collections leave nothing that could be collected.
  void CollectAll(uint64_t number, const std::function<void()>& pass_undo_window) const {
    for (int i = 0; i < 3; ++i) {
      pass_undo_window();
      const Result<CollectReport> report = Collect(++number, Fences::kEverySession);
      EXPECT_TRUE(report.ok()) << report.status().message();
    }
    const Result<CollectReport> rest = Collect(++number, Fences::kNobody, true);
    ASSERT_TRUE(rest.ok()) << rest.status().message();
    EXPECT_EQ(rest->tombstoned.count + rest->deleted.count, 0u);
    EXPECT_EQ(rest->waiting.count + rest->spared.count, 0u);
  }

 private:
  static uint64_t SeedOf(const std::string& id) {
    return std::strtoull(id.c_str() + 1, nullptr, 10);
  }

  FileSystem& files_;
  std::string folder_;
  Clock& clock_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MODEL_REPOSITORY_H_
