// Histories of writers, collectors, administrators and clocks over one repository, call by call in
// every order a seed brings about. What is true is known beside it: after each history every backup
// that has to be there reads back as it was written.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "core/crash_files.h"
#include "core/model_run.h"
#include "core/replayed_random.h"
#include "core/test_clock.h"
#include "repository/collector.h"
#include "repository/model_disk.h"
#include "repository/turn_files.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
constexpr uint64_t kHistories = 60;
constexpr uint64_t kUndoWindow = 1000;  // Seconds.

using Random = std::mt19937_64;

class History {
 public:
  struct Counts {
    uint64_t commits = 0, fenced = 0, collections = 0, deleted = 0, spared = 0, copied = 0,
             waiting = 0, dropped = 0, undeleted = 0, killed = 0, crashes = 0, patches = 0;
  };

  explicit History(uint64_t seed) : random_(seed), ids_(seed) {}

  Counts Run() {
    if (OneIn(4)) secret_ = Secret{Secret::Kind::kKey, ByteVector(32, std::byte{7})};
    EXPECT_TRUE(Repository::Create(files_, kFolder, secret(), clock_).ok());
    Prepare();
    Interleave();
    BackUpLater();
    if (!testing::Test::HasFailure()) Check();
    if (!testing::Test::HasFailure()) CollectAll();
    return counts_;
  }

 private:
  unsigned Below(unsigned end) { return static_cast<unsigned>(random_() % end); }
  bool OneIn(unsigned count) { return Below(count) == 0; }

  const Secret* secret() const { return secret_ ? &*secret_ : nullptr; }

  RepositoryLimits Limits() {
    RepositoryLimits limits;
    limits.pack_size = 3 * kBlockSize;
    limits.open_pack_count = 2;
    limits.index_memory = 1;
    limits.clock = &clock_;
    return limits;
  }

  std::unique_ptr<Repository> Open(FileSystem& files) {
    Result<std::unique_ptr<Repository>> opened =
        Repository::Open(files, kFolder, false, Limits(), secret());
    return opened.ok() ? *std::move(opened) : nullptr;
  }

  ModelDisk RandomDisk(const ModelDisk& before) {
    ModelDisk disk = OneIn(2) ? before : ModelDisk();
    const unsigned changes = 1 + Below(5);
    for (unsigned i = 0; i < changes; ++i) {
      disk[OneIn(2) ? Below(5) : 62 + Below(8)] = {1 + Below(7), Below(4)};
    }
    if (disk.size() > 3 && OneIn(2)) disk.erase(disk.begin());
    return disk;
  }

  // ---- A writer

  struct Attempt {
    std::string vm;
    std::string backup_id;
    FencingToken token;
    ModelDisk disk;
    bool is_aborted = false;
    uint64_t lock_duration = 0;
  };

  Attempt NewAttempt(const std::string& vm) {
    ++number_;
    Attempt attempt{vm, vm + "-" + std::to_string(number_), {1, number_}, RandomDisk(disks_[vm])};
    attempt.is_aborted = OneIn(8);
    if (OneIn(8)) attempt.lock_duration = 100'000;
    disks_[vm] = attempt.disk;
    written_[attempt.backup_id] = attempt.disk;
    return attempt;
  }

  void BackUp(FileSystem& files, const Attempt& attempt) {
    const std::unique_ptr<Repository> repository = Open(files);
    if (repository == nullptr) return;
    const Status done = BackUpInto(*repository, attempt);
    if (done.ok() && !attempt.is_aborted) {
      ++counts_.commits;
      expected_.insert(attempt.backup_id);
    }
    if (done.Is(reason::kRunFenced)) ++counts_.fenced;
    // What a session refers to does not go away under it.
    EXPECT_FALSE(done.Is(reason::kChunkMissing)) << done.message();
  }

  Status BackUpInto(Repository& repository, const Attempt& attempt) {
    const std::string vm = repository.naming().Pseudonym(attempt.vm);
    ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                     repository.OpenSession({vm, "point-" + attempt.backup_id, attempt.token}));
    ASSIGN_OR_RETURN(const std::vector<ListedManifest> listed, repository.ListManifests(vm));
    const Manifest* base = nullptr;
    for (const ListedManifest& one : listed) {
      // One that is removed may be dropped already.
      const bool is_sure = one.manifest && !one.removed_time && written_.contains(one.backup_id);
      if (is_sure) base = &*one.manifest;
    }
    if (attempt.token.number % 3 == 0) base = nullptr;
    CommitOptions options;
    options.backup_id = attempt.backup_id;
    options.lock_duration = attempt.lock_duration;
    std::optional<Digest> base_root;
    if (base != nullptr) {
      options.base_backup_id = base->backup_id;
      base_root = base->disks.at(0).root;
    }
    const ModelDisk before = base == nullptr ? ModelDisk() : written_.at(base->backup_id);
    ASSIGN_OR_RETURN(const std::optional<Digest> root,
                     StoreModelDisk(*session, attempt.disk, before, base_root, &counts_.patches));
    options.disks.push_back({"d", root, kModelDiskSize});
    if (attempt.is_aborted) return session->Abort();
    return ToStatus(session->Commit(options));
  }

  // ---- A collector

  // Whom it fences: nobody, those that are dead, or every session it finds, as if all had been
  // stopped for a day.
  enum class Fences { kNobody, kTheDead, kAll };

  void RunCollector(FileSystem& files, uint64_t number, Fences fences) {
    // Of an encrypted one every other collector has no key.
    Result<std::unique_ptr<Repository>> keyless = Status(reason::kKeyMissing, "");
    if (secret_ && number % 2 == 0) {
      keyless = Repository::OpenWithoutKey(files, kFolder, false, Limits());
    }
    const std::unique_ptr<Repository> repository = keyless.ok() ? *std::move(keyless) : Open(files);
    if (repository == nullptr) return;
    CollectOptions options;
    options.token = {1, number};
    options.undo_window = kUndoWindow;
    options.memory = 1;
    if (fences == Fences::kTheDead) options.dead_sessions = dead_sessions_;
    if (fences == Fences::kAll) {
      Result<std::vector<std::string>> open = repository->ListOpenSessions();
      if (open.ok()) options.dead_sessions = *open;
    }
    const Cancel cancel;
    Progress progress;
    const Result<CollectReport> report = Collect(repository.get(), options, &cancel, &progress);
    if (!report.ok()) {
      const bool is_fine = report.status().Is(reason::kRunFenced) ||
                           report.status().Is(reason::kRepositoryUnreachable) ||
                           report.status().Is(reason::kNotFound);
      EXPECT_TRUE(is_fine) << report.status().message();
      return;
    }
    ++counts_.collections;
    counts_.deleted += report->deleted.count;
    counts_.spared += report->spared.count;
    counts_.copied += report->copied.count;
    counts_.waiting += report->waiting.count;
    counts_.dropped += report->dropped_backups.size();
  }

  // ---- An administrator

  void Administrate(FileSystem& files, const std::vector<std::pair<int, std::string>>& orders) {
    const std::unique_ptr<Repository> repository = Open(files);
    if (repository == nullptr) return;
    for (const auto& [kind, id] : orders) {
      const std::string vm = repository->naming().Pseudonym(id.substr(0, id.find('-')));
      if (kind == 0) {
        // From the first moment on it may be gone, if time passes.
        const bool was_expected = expected_.erase(id) > 0;
        const Status removed = repository->RemoveBackup(vm, id);
        const bool is_refused =
            removed.Is(reason::kBackupHeld) || removed.Is(reason::kBackupLocked);
        if (was_expected && is_refused) expected_.insert(id);
        if (removed.ok() && was_expected) removed_.insert(id);
      } else if (kind == 1) {
        if (!repository->UndeleteBackup(vm, id).ok()) continue;
        ++counts_.undeleted;
        expected_.insert(id);
      } else {
        if (repository->HoldBackup(vm, id).ok()) expected_.insert(id);
      }
    }
  }

  // ---- A history

  void Prepare() {
    const unsigned count = 2 + Below(4);
    std::vector<std::string> ids;
    for (unsigned i = 0; i < count; ++i) {
      Attempt attempt = NewAttempt(OneIn(2) ? "v" : "w");
      BackUp(files_, attempt);
      if (expected_.contains(attempt.backup_id)) ids.push_back(attempt.backup_id);
    }
    // Some are removed, and their undo window is over in most histories.
    std::vector<std::pair<int, std::string>> orders;
    for (const std::string& id : ids) {
      if (OneIn(2)) orders.emplace_back(0, id);
    }
    Administrate(files_, orders);
    // Their undo windows begin.
    if (!OneIn(4)) RunCollector(files_, ++number_, Fences::kNobody);
    if (!OneIn(4)) {
      clock_.reading.since_boot += 2 * kUndoWindow;
      removed_.clear();
    }
    // A session that was left behind, and a collection that ended somewhere.
    if (OneIn(3)) KillOneBackup();
    if (OneIn(2)) {
      Turns turns(random_());
      const uint64_t kill_at = OneIn(2) ? 0 : 800 + Below(1500);
      turns.Run(files_,
                {{[&](FileSystem& files) { RunCollector(files, ++number_, Fences::kNobody); }, 0,
                  kill_at}},
                1000);
      counts_.killed += kill_at != 0 && turns.call_count(0) >= kill_at ? 1 : 0;
    }
  }

  void KillOneBackup() {
    Attempt attempt = NewAttempt("z");
    Turns turns(random_());
    turns.Run(files_, {{[&](FileSystem& files) { BackUp(files, attempt); }, 0, 300 + Below(500)}},
              1000);
    ++counts_.killed;
    Result<std::vector<std::string>> open = Open(files_)->ListOpenSessions();
    ASSERT_TRUE(open.ok());
    dead_sessions_ = *open;
  }

  void Interleave() {
    std::vector<Turns::Process> processes;
    std::vector<std::string> ids;
    for (const auto& [id, disk] : written_) ids.push_back(id);
    const auto add = [&](std::function<void(FileSystem&)> run) {
      Turns::Process process{std::move(run)};
      if (OneIn(3)) process.pause_at = 1 + Below(1600);
      if (OneIn(8)) process.kill_at = 1 + Below(1600);
      processes.push_back(std::move(process));
    };
    const unsigned backups = 1 + Below(2);
    for (unsigned i = 0; i < backups; ++i) {
      const Attempt attempt = NewAttempt(i == 0 ? "v" : OneIn(4) ? "v" : "w");
      add([this, attempt](FileSystem& files) { BackUp(files, attempt); });
      // With all that it knows of what is present, and nothing published.
      if (OneIn(4)) {
        processes.back().pauses_before = [](const std::string& path) {
          return path.starts_with("/r/sessions/") && path.find(".pack") != std::string::npos;
        };
      }
      if (OneIn(3)) {
        const Attempt next = NewAttempt(attempt.vm);
        processes.back().run = [this, attempt, next](FileSystem& files) {
          BackUp(files, attempt);
          BackUp(files, next);
        };
      }
    }
    const unsigned collectors = 1 + Below(3);
    for (unsigned i = 0; i < collectors; ++i) {
      const uint64_t number = OneIn(3) ? number_ : ++number_;
      const Fences fences = static_cast<Fences>(Below(3));
      const bool is_twice = OneIn(2);
      add([this, number, fences, is_twice](FileSystem& files) {
        RunCollector(files, number, fences);
        if (is_twice) RunCollector(files, number, fences);
      });
    }
    if (OneIn(2)) {
      std::vector<std::pair<int, std::string>> orders;
      const unsigned count = 1 + Below(3);
      for (unsigned i = 0; i < count; ++i) orders.emplace_back(Below(3), ids[Below(ids.size())]);
      add([this, orders](FileSystem& files) { Administrate(files, orders); });
    }
    if (OneIn(2)) {
      const bool is_forward = OneIn(2);
      const bool is_new_boot = OneIn(2);
      add([this, is_forward, is_new_boot](FileSystem& files) {
        static_cast<void>(files.List(kFolder).ok());
        const uint64_t ten_years = uint64_t{10} * 365 * 24 * 3600;
        clock_.reading.wall += is_forward ? ten_years : uint64_t{0} - ten_years;
        if (is_new_boot) clock_.reading.boot_id[1] = std::byte{7};
      });
    }
    // The machine of the storage crashes under all of them.
    const bool may_crash = OneIn(3);
    if (may_crash) files_.CrashAt(1 + Below(OneIn(2) ? 60 : 300));
    Turns turns(random_());
    turns.Run(files_, std::move(processes), OneIn(2) ? 2 + Below(10) : 20 + Below(300));
    if (!may_crash) return;
    using Survivor = CrashFiles::Survivor;
    static constexpr Survivor kSurvivors[] = {Survivor::kProcess, Survivor::kPlatter,
                                              Survivor::kMixture};
    const bool has_crashed = files_.planned_fault_came();
    counts_.crashes += has_crashed ? 1 : 0;
    if (has_crashed) {
      files_.Restart(kSurvivors[Below(3)], static_cast<uint32_t>(random_()));
    } else {
      files_.FailAt(0, {});
    }
  }

  // Once all have ended: what they left behind must not mislead anybody.
  void BackUpLater() {
    const unsigned count = Below(3);
    for (unsigned i = 0; i < count; ++i) BackUp(files_, NewAttempt(OneIn(2) ? "v" : "u"));
  }

  // Whatever is listed reads back as it was written, and everything that has to be listed is.
  void Check() {
    const std::unique_ptr<Repository> repository = Open(files_);
    ASSERT_NE(repository, nullptr);
    EXPECT_TRUE(repository->damaged_packs().empty());
    Result<std::vector<ListedManifest>> listed = repository->ListManifests(std::nullopt);
    ASSERT_TRUE(listed.ok());
    std::set<std::string> found;
    for (const ListedManifest& one : *listed) {
      ASSERT_TRUE(one.manifest.has_value()) << one.damage.message();
      if (one.is_dropped) continue;
      found.insert(one.backup_id);
      CheckDisk(*repository, *one.manifest);
    }
    for (const std::string& id : expected_) {
      EXPECT_TRUE(found.contains(id)) << id << " is lost";
    }
    for (const std::string& id : std::exchange(removed_, {})) {
      EXPECT_TRUE(found.contains(id)) << id << " went before its time";
    }
  }

  void CheckDisk(Repository& repository, const Manifest& manifest) {
    bool failed = false;
    EXPECT_EQ(CompareModelDisk(repository, manifest.disks.at(0).root,
                               written_.at(manifest.backup_id), &failed),
              "")
        << manifest.backup_id;
  }

  // Once nothing runs any more, a few collections leave nothing that could be collected.
  void CollectAll() {
    for (int i = 0; i < 4; ++i) {
      clock_.reading.since_boot += 2 * kUndoWindow;
      Result<std::vector<std::string>> open = Open(files_)->ListOpenSessions();
      ASSERT_TRUE(open.ok());
      dead_sessions_ = *open;
      RunCollector(files_, ++number_, Fences::kTheDead);
      Check();
      if (testing::Test::HasFailure()) return;
    }
    const std::unique_ptr<Repository> repository = Open(files_);
    CollectOptions options;
    options.token = {1, ++number_};
    options.undo_window = kUndoWindow;
    options.dry_run = true;
    const Cancel cancel;
    Progress progress;
    Result<CollectReport> report = Collect(repository.get(), options, &cancel, &progress);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_EQ(report->tombstoned.count, 0u);
    EXPECT_EQ(report->deleted.count + report->waiting.count + report->spared.count, 0u);
    for (const std::string& path : files_.AllFiles()) {
      EXPECT_FALSE(path.starts_with("/r/collectors/")) << path;
    }
  }

  Random random_;
  ReplayedRandom ids_;
  std::optional<Secret> secret_;  // Of an encrypted history.
  CrashFiles files_;
  TestClock clock_;
  uint64_t number_ = 0;
  std::map<std::string, ModelDisk> disks_;    // Of each VM, as it is now.
  std::map<std::string, ModelDisk> written_;  // By backup id, whether or not it was committed.
  std::set<std::string> expected_;            // Ids that have to be listed.
  // Those that were removed since time passed last, whatever a clock that was set says.
  std::set<std::string> removed_;
  std::vector<std::string> dead_sessions_;
  Counts counts_;
};

TEST(CollectionModel, LosesNoBackupInAnyHistory) {
  const uint64_t seed = NumberFrom("SEED", std::random_device()());
  const uint64_t histories = NumberFrom("HISTORIES", kHistories);
  std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  History::Counts sum;
  uint64_t run_count = 0;
  for (uint64_t i = 0; i < histories && !testing::Test::HasFailure(); ++i) {
    const History::Counts counts = History(seed + i).Run();
    ++run_count;
    if (testing::Test::HasFailure()) {
      std::printf("SEED=%llu HISTORIES=1 TRACE=1 plays it again\n",
                  static_cast<unsigned long long>(seed + i));
    }
    sum.commits += counts.commits;
    sum.fenced += counts.fenced;
    sum.collections += counts.collections;
    sum.deleted += counts.deleted;
    sum.spared += counts.spared;
    sum.copied += counts.copied;
    sum.waiting += counts.waiting;
    sum.dropped += counts.dropped;
    sum.undeleted += counts.undeleted;
    sum.killed += counts.killed;
    sum.crashes += counts.crashes;
    sum.patches += counts.patches;
  }
  ShowCounts({{"histories", run_count},
              {"commits", sum.commits},
              {"fenced", sum.fenced},
              {"collections", sum.collections},
              {"deleted packs", sum.deleted},
              {"spared", sum.spared},
              {"copied", sum.copied},
              {"waiting", sum.waiting},
              {"dropped backups", sum.dropped},
              {"undeleted", sum.undeleted},
              {"killed", sum.killed},
              {"crashes", sum.crashes},
              {"patches", sum.patches}});
}

}  // namespace
}  // namespace blockferry
