// A process that backs up, removes and collects on a real file system is killed with SIGKILL, again
// and again: what it had answered is there and whole, and the next one goes on.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "core/test_clock.h"
#include "repository/model_repository.h"

namespace blockferry {
namespace {

constexpr uint64_t kKills = 12;
constexpr size_t kKept = 6;

using Fences = ModelRepository::Fences;

TestClock ClockOf(uint64_t life) {
  TestClock clock;
  clock.reading.since_boot += life * 1'000'000;
  clock.reading.wall += life * 1'000'000;
  return clock;
}

const char* VmOf(uint64_t seed) { return seed % 2 == 0 ? "v" : "w"; }

// What a process does until it is killed. It tells in capitals what it begins, and otherwise what
// it has done.
class Life {
 public:
  Life(std::string folder, uint64_t life, uint64_t seed, int out)
      : clock_(ClockOf(life)),
        repository_(SystemFiles(), std::move(folder), clock_),
        random_(seed + life),
        number_(life * 10'000),
        out_(out) {
    repository_.seals_in_background = true;
  }

  [[noreturn]] void Run() {
    while (true) {
      clock_.reading.since_boot += kModelUndoWindow;
      const unsigned kind = random_() % 4;
      if (kind == 0) {
        Tell('C', 0);
        Expect(ToStatus(repository_.Collect(++number_, Fences::kEverySession)));
        Tell('c', 0);
      } else if (kind == 1) {
        RemoveOldest();
      } else {
        const uint64_t seed = ++number_;
        Tell('B', seed);
        Expect(repository_.BackUp(VmOf(seed), seed, number_));
        Tell('b', seed);
      }
    }
  }

 private:
  void RemoveOldest() {
    Result<std::unique_ptr<Repository>> repository = repository_.Open();
    Expect(ToStatus(repository));
    Result<std::vector<ListedManifest>> listed = (*repository)->ListManifests(std::nullopt);
    Expect(ToStatus(listed));
    std::set<uint64_t> seeds;
    for (const ListedManifest& one : *listed) {
      if (!one.removed_time && !one.is_dropped)
        seeds.insert(std::strtoull(one.backup_id.c_str() + 1, nullptr, 10));
    }
    repository->reset();
    while (seeds.size() > kKept) {
      const uint64_t oldest = *seeds.begin();
      seeds.erase(oldest);
      Tell('R', oldest);
      Expect(repository_.Remove(VmOf(oldest), oldest));
      Tell('r', oldest);
    }
  }

  void Tell(char what, uint64_t seed) {
    const std::string line = std::string(1, what) + " " + std::to_string(seed) + "\n";
    if (write(out_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) _exit(2);
  }
  void Expect(const Status& done) {
    if (done.ok()) return;
    const std::string line = "E " + done.message() + "\n";
    if (write(out_, line.data(), line.size()) < 0) _exit(2);
    _exit(1);
  }

  TestClock clock_;
  ModelRepository repository_;
  std::mt19937_64 random_;
  uint64_t number_;
  int out_;
};

std::string ReadAll(int from) {
  std::string text;
  char buffer[4096];
  ssize_t size;
  while ((size = read(from, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(size));
  }
  return text;
}

struct Counts {
  uint64_t kills = 0, backups = 0, removals = 0, collections = 0, proven = 0, done = 0;
};

// Takes over what a life told; a line that is not complete was not told.
void TakeOver(const std::string& told, std::set<uint64_t>* expected, Counts* counts) {
  std::istringstream lines(told.substr(0, told.rfind('\n') + 1));
  char begun = 0;
  for (std::string line; std::getline(lines, line);) {
    const uint64_t seed = std::strtoull(line.c_str() + 2, nullptr, 10);
    if (line[0] == 'E') ADD_FAILURE() << line;
    if (line[0] == 'b') expected->insert(seed);
    if (line[0] == 'R') expected->erase(seed);
    begun = line[0] >= 'A' && line[0] <= 'Z' ? line[0] : char{0};
    counts->done += begun == 0 ? 1 : 0;
  }
  counts->backups += begun == 'B' ? 1 : 0;
  counts->removals += begun == 'R' ? 1 : 0;
  counts->collections += begun == 'C' ? 1 : 0;
}

std::string LiveAndDie(const std::string& folder, uint64_t life, uint64_t seed, unsigned wait_us) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  // A process of a few threads' life, so that a file is open and another one half merged.
  const pid_t child = fork();
  if (child == 0) Life(folder, life, seed, ends[1]).Run();
  EXPECT_GT(child, 0);
  close(ends[1]);
  std::this_thread::sleep_for(std::chrono::microseconds(wait_us));
  kill(child, SIGKILL);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  const std::string told = ReadAll(ends[0]);
  close(ends[0]);
  return told;
}

TEST(KillModel, LosesNothingThatWasAnswered) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer does not follow a fork";
#endif
  const uint64_t seed = NumberFrom("SEED", std::random_device()());
  const uint64_t kills = NumberFrom("KILLS", kKills);
  std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::string parent = (std::filesystem::temp_directory_path() / "bf-kill-XXXXXX").string();
  ASSERT_NE(mkdtemp(parent.data()), nullptr);
  const std::string folder = parent + "/r";
  TestClock begin = ClockOf(0);
  ASSERT_TRUE(Repository::Create(SystemFiles(), folder, nullptr, begin).ok());
  std::mt19937_64 random(seed);
  std::set<uint64_t> expected;
  Counts counts;
  while (counts.kills < kills && !HasFailure()) {
    SCOPED_TRACE("SEED=" + std::to_string(seed) + " kill " + std::to_string(counts.kills));
    const uint64_t life = ++counts.kills;
    const unsigned wait_us =
        static_cast<unsigned>(random() % (random() % 4 == 0 ? 8'000 : 150'000));
    TakeOver(LiveAndDie(folder, life, seed, wait_us), &expected, &counts);
    TestClock clock = ClockOf(life);
    const ModelRepository repository(SystemFiles(), folder, clock);
    const std::map<uint64_t, uint64_t> kept = repository.Prove();
    counts.proven += kept.size();
    for (const uint64_t one : expected) {
      EXPECT_TRUE(kept.contains(one)) << IdOf(one) << " is lost";
    }
  }
  if (!HasFailure()) {
    TestClock clock = ClockOf(kills + 1);
    const ModelRepository repository(SystemFiles(), folder, clock);
    repository.CollectAll((kills + 1) * 10'000,
                          [&] { clock.reading.since_boot += 2 * kModelUndoWindow; });
    const std::map<uint64_t, uint64_t> kept = repository.Prove();
    for (const uint64_t one : expected) EXPECT_TRUE(kept.contains(one));
    std::filesystem::remove_all(parent);
  }
  ShowCounts({{"kills", counts.kills},
              {"in a backup", counts.backups},
              {"in a removal", counts.removals},
              {"in a collection", counts.collections},
              {"done before", counts.done},
              {"proven", counts.proven}});
  EXPECT_GT(counts.backups + counts.collections, 0u);
}

}  // namespace
}  // namespace blockferry
