// One process is stopped before each of its calls to the file system while another one does all it
// wants to, in both orders: a backup, a collection, a removal against each other. Exactly one of
// two that exclude each other wins, no backup is committed late, and what was committed stays
// whole.
#include <algorithm>
#include <functional>
#include <set>

#include "core/crash_files.h"
#include "core/test_clock.h"
#include "repository/model_repository.h"
#include "repository/stop_files.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
// Every so manieth call, from a seed on; STRIDE=1: every call.
constexpr uint64_t kStride = 101;

using Fences = ModelRepository::Fences;

// Seeds of the backups that each case starts with: of v, removed and past its undo window, of w.
constexpr uint64_t kFirst = 1, kRemoved = 2, kOther = 3;
// And of those that are made in it.
constexpr uint64_t kStopped = 10, kNewer = 11;

struct Scene {
  std::unique_ptr<CrashFiles> files;
  TestClock clock;
  std::set<uint64_t> expected;  // Has to be listed in the end.
  uint64_t number = 100;

  Scene Copy() const { return {files->Copy(), clock, expected, number}; }
  void PassUndoWindow() { clock.reading.since_boot += 2 * kModelUndoWindow; }
};

// `waits`: an earlier session was left behind, and tombstones wait for its end.
Scene MakeScene(bool waits) {
  Scene scene{std::make_unique<CrashFiles>(), {}, {kFirst, kOther}};
  EXPECT_TRUE(Repository::Create(*scene.files, kFolder, nullptr, scene.clock).ok());
  const ModelRepository repository(*scene.files, kFolder, scene.clock);
  EXPECT_TRUE(repository.BackUp("v", kFirst, 1).ok());
  EXPECT_TRUE(repository.BackUp("v", kRemoved, 2).ok());
  EXPECT_TRUE(repository.BackUp("w", kOther, 3).ok());
  EXPECT_TRUE(repository.Remove("v", kRemoved).ok());
  EXPECT_TRUE(repository.Collect(4, Fences::kNobody).ok());
  scene.PassUndoWindow();
  if (waits) {
    scene.files->CrashAt(30);
    EXPECT_FALSE(repository.BackUp("z", 4, 5).ok());
    scene.files->Restart(CrashFiles::Survivor::kProcess, 1);
    const Result<CollectReport> report = repository.Collect(6, Fences::kNobody);
    EXPECT_TRUE(report.ok()) << report.status().message();
    EXPECT_GT(report->waiting.count + report->tombstoned.count, 0u);
  }
  return scene;
}

// What one of the two does, and what is expected from then on.
struct Act {
  std::function<Status(Scene&, const ModelRepository&)> run;
  std::vector<std::string_view> refusals;
};

Act BackUp(uint64_t seed, std::vector<std::string_view> refusals) {
  return {[seed](Scene& scene, const ModelRepository& repository) {
            // The stopped one is older, whoever answers first.
            const uint64_t number = seed == kStopped ? 50 : ++scene.number;
            const Status done = repository.BackUp("v", seed, number);
            if (done.ok()) scene.expected.insert(seed);
            return done;
          },
          std::move(refusals)};
}

Act Collect(Fences fences, bool is_older, std::vector<std::string_view> refusals) {
  return {[=](Scene& scene, const ModelRepository& repository) {
            const uint64_t number = is_older ? 51 : ++scene.number;
            return ToStatus(repository.Collect(number, fences));
          },
          std::move(refusals)};
}

Act Undelete() {
  return {[](Scene& scene, const ModelRepository& repository) {
            const Status done = repository.Undelete("v", kRemoved);
            if (done.ok()) scene.expected.insert(kRemoved);
            return done;
          },
          {reason::kBackupNotFound}};
}

Act Remove(uint64_t seed) {
  return {[seed](Scene& scene, const ModelRepository& repository) {
            scene.expected.erase(seed);
            return repository.Remove(seed == kOther ? "w" : "v", seed);
          },
          {}};
}

// The base of the stopped backup, until nothing of it is left.
Act RemoveForGood() {
  return {[](Scene& scene, const ModelRepository& repository) {
            scene.expected.erase(kFirst);
            RETURN_IF_ERROR(repository.Remove("v", kFirst));
            for (int i = 0; i < 3; ++i) {
              RETURN_IF_ERROR(repository.Collect(++scene.number, Fences::kNobody));
              scene.PassUndoWindow();
            }
            return Status();
          },
          {}};
}

struct Case {
  const char* name;
  Act stopped;
  Act other;
};

std::vector<Case> Cases() {
  constexpr Fences kNobody = Fences::kNobody, kAll = Fences::kEverySession;
  const std::string_view fenced = reason::kRunFenced;
  return {
      {"a backup, a collection", BackUp(kStopped, {}), Collect(kNobody, false, {})},
      {"a backup that is taken for dead, a collection", BackUp(kStopped, {fenced}),
       Collect(kAll, false, {})},
      {"a backup, a newer one", BackUp(kStopped, {fenced}), BackUp(kNewer, {})},
      {"a backup, the end of its base", BackUp(kStopped, {reason::kBaseMissing}), RemoveForGood()},
      {"a collection, a backup", Collect(kNobody, true, {}), BackUp(kNewer, {})},
      {"a collection that fences, a backup", Collect(kAll, true, {}), BackUp(kNewer, {})},
      {"a collection, a newer one", Collect(kAll, true, {fenced}), Collect(kAll, false, {})},
      {"a collection, an undelete", Collect(kAll, true, {}), Undelete()},
      {"an undelete, a collection", Undelete(), Collect(kAll, false, {})},
      {"a collection, a removal", Collect(kAll, true, {}), Remove(kOther)},
      {"a removal, a collection", Remove(kOther), Collect(kAll, false, {})},
  };
}

struct Counts {
  uint64_t stops = 0, refused = 0, both = 0;
};

void ExpectAllowed(const char* who, const Status& done,
                   const std::vector<std::string_view>& refusals) {
  const bool is_allowed =
      done.ok() || std::any_of(refusals.begin(), refusals.end(),
                               [&](std::string_view reason) { return done.Is(reason); });
  EXPECT_TRUE(is_allowed) << who << ": " << done.message();
}

// False when the stopped one ended before that call.
bool StopAt(uint64_t call, const Case& of, Scene scene, Counts* counts) {
  SCOPED_TRACE(std::string(of.name) + ", before call " + std::to_string(call));
  Status other;
  StopFiles files(*scene.files, call, [&] {
    other = of.other.run(scene, ModelRepository(*scene.files, kFolder, scene.clock));
  });
  const Status stopped = of.stopped.run(scene, ModelRepository(files, kFolder, scene.clock));
  if (!files.has_stopped()) return false;
  ++counts->stops;
  counts->refused += stopped.ok() && other.ok() ? 0 : 1;
  counts->both += stopped.ok() && other.ok() ? 1 : 0;
  ExpectAllowed("the stopped one", stopped, of.stopped.refusals);
  ExpectAllowed("the other one", other, of.other.refusals);
  const ModelRepository repository(*scene.files, kFolder, scene.clock);
  const auto check = [&] {
    const std::map<uint64_t, uint64_t> kept = repository.Prove();
    for (const uint64_t seed : scene.expected) {
      EXPECT_TRUE(kept.contains(seed)) << IdOf(seed) << " is lost";
    }
    // Who was overtaken is not committed behind the newer one.
    if (kept.contains(kStopped) && kept.contains(kNewer)) {
      EXPECT_LT(kept.at(kStopped), kept.at(kNewer));
    }
    // An answer that says no is never followed by a commit.
    EXPECT_EQ(kept.contains(kStopped), scene.expected.contains(kStopped));
  };
  check();
  repository.CollectAll(scene.number, [&] { scene.PassUndoWindow(); });
  check();
  return true;
}

TEST(StopModel, OneWinsWhereverTheOtherIsStopped) {
  const uint64_t seed = NumberFrom("SEED", std::random_device()());
  const uint64_t stride = NumberFrom("STRIDE", kStride);
  std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  Counts counts;
  const std::vector<Case> cases = Cases();
  for (const bool waits : {false, true}) {
    const Scene scene = MakeScene(waits);
    for (const Case& one : cases) {
      SCOPED_TRACE("SEED=" + std::to_string(seed) + (waits ? " with tombstones" : ""));
      uint64_t call = 1 + seed % stride;
      while (!HasFailure() && StopAt(call, one, scene.Copy(), &counts)) call += stride;
      if (HasFailure()) return;
      EXPECT_GT(call, stride) << one.name << " makes too few calls";
    }
  }
  ShowCounts({{"stops", counts.stops}, {"refused", counts.refused}, {"both", counts.both}});
  // A stride of one sees all of it; the rest at least some.
  EXPECT_GT(counts.both, 0u);
}

}  // namespace
}  // namespace blockferry
