// The life of a repository, some thousand calls long, of which each one fails in its turn, with
// ENOSPC and with EIO: the answer is clear, everything stays readable, and when the trouble is over
// backups go on and a collection gives space back.
#include <set>
#include <vector>

#include "core/crash_files.h"
#include "core/test_clock.h"
#include "repository/model_repository.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
constexpr uint64_t kCalls = 2000;
// Every so manieth call, from a seed on; STRIDE=1: every call.
constexpr uint64_t kStride = 41;

using Fences = ModelRepository::Fences;

struct Moment {
  std::unique_ptr<CrashFiles> files;
  TestClock clock;
  std::set<uint64_t> expected;
  uint64_t step = 0;
  uint64_t first_call = 1;  // Of the step that comes next.

  Moment Copy() const { return {files->Copy(), clock, expected, step, first_call}; }
  ModelRepository repository() { return ModelRepository(*files, kFolder, clock); }
  void PassUndoWindow() { clock.reading.since_boot += 2 * kModelUndoWindow; }

  // A backup, most of the time; each keeps four of its VM, and a collection comes after every four.
  Status Step() {
    const uint64_t number = ++step;
    if (number % 5 == 0) {
      PassUndoWindow();
      return ToStatus(repository().Collect(number, Fences::kEverySession));
    }
    if (number % 5 == 4 && expected.size() > 4) {
      const uint64_t oldest = *expected.begin();
      expected.erase(oldest);
      return repository().Remove("v", oldest);
    }
    const Status done = repository().BackUp("v", number, number);
    if (done.ok()) expected.insert(number);
    return done;
  }
};

std::vector<Moment> LifeOf(uint64_t calls) {
  std::vector<Moment> life;
  Moment now{std::make_unique<CrashFiles>(), {}, {}};
  EXPECT_TRUE(Repository::Create(*now.files, kFolder, nullptr, now.clock).ok());
  while (now.first_call <= calls && !testing::Test::HasFailure()) {
    life.push_back(now.Copy());
    now.files->FailAt(0, {});
    const Status done = now.Step();
    EXPECT_TRUE(done.ok()) << done.message();
    now.first_call += now.files->call_count();
  }
  life.push_back(std::move(now));
  return life;
}

// Whether the call came.
bool Fail(Moment moment, uint64_t call, std::string_view with) {
  moment.files->FailAt(call, Status(std::string(with), "planned"));
  const Status done = moment.Step();
  const bool came = moment.files->planned_fault_came();
  const std::string path = moment.files->planned_fault_path();
  SCOPED_TRACE("step " + std::to_string(moment.step) + " call " + std::to_string(call) + " " +
               path);
  moment.files->FailAt(0, {});
  // What only tidies up may fail unseen; what is refused says why.
  EXPECT_TRUE(done.ok() || done.Is(with)) << done.message();
  EXPECT_TRUE(came || done.ok());
  const auto check = [&] {
    const std::map<uint64_t, uint64_t> kept = moment.repository().Prove();
    for (const uint64_t seed : moment.expected) {
      EXPECT_TRUE(kept.contains(seed)) << IdOf(seed) << " is lost";
    }
  };
  check();
  const uint64_t later = moment.step + 1000;
  const Status again = moment.repository().BackUp("v", later, later);
  EXPECT_TRUE(again.ok()) << again.message();
  moment.expected.insert(later);
  moment.repository().CollectAll(later, [&] { moment.PassUndoWindow(); });
  check();
  return came;
}

TEST(FailureModel, EveryCallMayFail) {
  const uint64_t seed = NumberFrom("SEED", std::random_device()());
  const uint64_t stride = NumberFrom("STRIDE", kStride);
  std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  const std::vector<Moment> life = LifeOf(kCalls);
  uint64_t runs = 0;
  uint64_t failures = 0;
  size_t at = 0;
  for (uint64_t call = 1 + seed % stride; call <= kCalls && !HasFailure(); call += stride) {
    while (life[at + 1].first_call <= call) ++at;
    for (const std::string_view with : {reason::kRepositoryFull, reason::kRepositoryUnreachable}) {
      SCOPED_TRACE("SEED=" + std::to_string(seed) + " STRIDE=" + std::to_string(stride));
      ++runs;
      failures += Fail(life[at].Copy(), call - life[at].first_call + 1, with) ? 1 : 0;
    }
  }
  ShowCounts({{"calls", runs}, {"failed", failures}});
  // Ids are drawn, so a step may be shorter than the first time.
  EXPECT_GT(failures * 10, runs * 9);
}

}  // namespace
}  // namespace blockferry
