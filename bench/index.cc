// The index of a repository with many names: what it costs to build, to open, to ask, to hold.
//
//   cmake --build native/build --target index && native/out/index FOLDER NAMES…
//
// For each number of names a repository is created in FOLDER, packs of 1,000 names each are added
// to the product's index as sessions add them, and files are written and merged by its own code.
// The packs are files of no bytes: nobody opens a pack that a file of the index covers. Then a new
// process opens the repository and looks names up. One JSON line for each number; the repository
// is removed afterwards.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "core/endian.h"
#include "repository/pack_index.h"
#include "repository/repository.h"
#include "repository/repository_format.h"

namespace blockferry {
namespace {

constexpr uint64_t kNamesOfAPack = 1000;
constexpr uint32_t kStoredSize = 32000;
constexpr uint64_t kLookupCount = 500000;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Stands for a keyed digest: the number mixed well (splitmix64), for each eight bytes.
void Mix(uint64_t number, MutableBytes out) {
  for (size_t at = 0; at < out.size(); at += 8) {
    uint64_t word = (number = number * 4 + 1) + 0x9e3779b97f4a7c15u * (at + 1);
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9u;
    word = (word ^ word >> 27) * 0x94d049bb133111ebu;
    StoreLe(out.data() + at, word ^ word >> 31);
  }
}

Digest NameOf(uint64_t number) {
  Digest name;
  Mix(number, name);
  return name;
}

// Of the process, in MiB: "VmRSS" is what it holds now, "VmHWM" the most it ever held.
double MemoryOf(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":"))
      return std::strtod(line.c_str() + field.size() + 1, nullptr) / 1024;
  }
  return 0;
}

[[noreturn]] void Fail(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  _exit(1);
}

uint64_t BytesOfIndex(const std::string& folder, uint64_t* count) {
  uint64_t size = 0;
  *count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/index")) {
    size += entry.file_size();
    ++*count;
  }
  return size;
}

// Adds the packs and waits until all of it is merged.
void Build(const std::string& folder, uint64_t name_count) {
  Result<RepositoryInfo> created = Repository::Create(SystemFiles(), folder);
  if (!created.ok()) Fail(created.status());
  const RepositoryLimits limits;
  PackIndex index(SystemFiles(), folder, created->repository_id,
                  {limits.index_memory, true, false, limits.scratch_folder});
  index.ReadFiles();
  index.Settle();
  const double began = Seconds();
  double files_seconds = 0;  // Making the packs' own files is not the index's work.
  std::vector<PackEntry> entries(kNamesOfAPack);
  for (uint64_t name = 0; name < name_count; name += kNamesOfAPack) {
    PackId id;
    Mix(name + (uint64_t{1} << 60), id);
    for (uint64_t i = 0; i < kNamesOfAPack; ++i) {
      entries[i] = {NameOf(name + i),
                    RecordType::kChunk,
                    Codec::kLz4,
                    static_cast<uint32_t>(128 + i * kStoredSize),
                    65536,
                    kStoredSize};
    }
    const double at = Seconds();
    const std::string path = folder + "/packs/" + HexOf(Bytes(id).first(1)) + "/" + HexOf(id);
    std::ofstream(path + repository_format::kPackSuffix);
    files_seconds += Seconds() - at;
    Result<uint32_t> added = index.AddPack({id}, kNamesOfAPack * kStoredSize, entries);
    if (!added.ok()) Fail(added.status());
  }
  const double built = Seconds();
  index.Settle();
  index.AwaitWork();
  std::printf(
      "{\"names\": %llu, \"build_seconds\": %.2f, \"merge_seconds_after\": %.2f, "
      "\"build_peak_mib\": %.1f, ",
      static_cast<unsigned long long>(name_count), built - began - files_seconds, Seconds() - built,
      MemoryOf("VmHWM"));
  std::fflush(stdout);
}

// Of this thread: other programs that use the machine make a lookup seem slow.
double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

struct Speed {
  double per_second = 0;
  double cpu_microseconds = 0;  // Of one lookup.
};

Speed Measure(Repository& repository, uint64_t first, uint64_t count, bool expected) {
  const double began = Seconds();
  const double cpu_began = CpuSeconds();
  for (uint64_t i = 0; i < kLookupCount; ++i) {
    // All over the names, in no order.
    const uint64_t name = first + (i * 0x9e3779b97f4a7c15u >> 11) % count;
    if (repository.Has(NameOf(name)) != expected) {
      Fail(Status(reason::kInternal, "name " + std::to_string(name) + " is answered wrongly"));
    }
  }
  const double lookups = static_cast<double>(kLookupCount);
  return {lookups / (Seconds() - began), (CpuSeconds() - cpu_began) / lookups * 1e6};
}

void OpenAndAsk(const std::string& folder, uint64_t name_count) {
  RepositoryLimits limits;
  limits.seal_in_background = true;
  const double memory_before = MemoryOf("VmRSS");
  const double began = Seconds();
  Result<std::unique_ptr<Repository>> repository =
      Repository::Open(SystemFiles(), folder, false, limits);
  if (!repository.ok()) Fail(repository.status());
  const double open_seconds = Seconds() - began;
  const double memory_opened = MemoryOf("VmRSS");
  const uint64_t known = (*repository)->info().chunk_count;
  const uint64_t lost = (*repository)->damaged_packs().size();
  // What no file covers yet would be in tables, which these packs do not have.
  const uint64_t asked = name_count - lost * kNamesOfAPack;
  Measure(**repository, 0, asked, true);
  const Speed hits = Measure(**repository, 0, asked, true);
  Measure(**repository, name_count, uint64_t{1} << 50, false);
  const Speed misses = Measure(**repository, name_count, uint64_t{1} << 50, false);
  uint64_t file_count = 0;
  const uint64_t size = BytesOfIndex(folder, &file_count);
  std::printf(
      "\"known\": %llu, \"files\": %llu, \"bytes\": %llu, \"open_ms\": %.1f, "
      "\"hits_per_second\": %.0f, \"hit_cpu_us\": %.2f, \"misses_per_second\": %.0f, "
      "\"miss_cpu_us\": %.2f, "
      "\"opened_mib\": %.1f, \"resident_mib\": %.1f, \"peak_mib\": %.1f, "
      "\"of_it_without_index_mib\": %.1f}\n",
      static_cast<unsigned long long>(known), static_cast<unsigned long long>(file_count),
      static_cast<unsigned long long>(size), open_seconds * 1000, hits.per_second,
      hits.cpu_microseconds, misses.per_second, misses.cpu_microseconds, memory_opened,
      MemoryOf("VmRSS"), MemoryOf("VmHWM"), memory_before);
  std::fflush(stdout);
}

template <typename Work>
bool InAProcessOfItsOwn(Work work) {
  const pid_t child = fork();
  if (child == 0) {
    work();
    _exit(0);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace
}  // namespace blockferry

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: index FOLDER NAMES…\n");
    return 2;
  }
  using namespace blockferry;
  for (int i = 2; i < argc; ++i) {
    const std::string folder = std::string(argv[1]) + "/index-" + argv[i];
    const uint64_t name_count = std::strtoull(argv[i], nullptr, 10) / kNamesOfAPack * kNamesOfAPack;
    const bool is_fine = InAProcessOfItsOwn([&] { Build(folder, name_count); }) &&
                         InAProcessOfItsOwn([&] { OpenAndAsk(folder, name_count); });
    if (std::getenv("KEEP") == nullptr) std::filesystem::remove_all(folder);
    if (!is_fine) return 1;
  }
  return 0;
}
