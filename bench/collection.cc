// A collection of a repository with many chunks, written through the product's own writer.
//
//   collection FOLDER CHUNKS [STORED_BYTES]
//
// Writes ten backups of as many VMs, each with a tenth of the chunks; of every two neighbours one
// chunk in ten is shared. Run again it looks a million names up, removes five backups, and
// collects. Chunks are small, so that what is measured is the bookkeeping: the names, the maps, the
// tables. One line of JSON.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "repository/collector.h"

namespace blockferry {
namespace {

constexpr uint64_t kVmCount = 10;
constexpr uint64_t kLookups = 1'000'000;

double SecondsSince(std::chrono::steady_clock::time_point begun) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

[[noreturn]] void Fail(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

void Check(const Status& status) {
  if (!status.ok()) Fail(status);
}

template <typename T>
T Take(Result<T> result) {
  if (!result.ok()) Fail(result.status());
  return *std::move(result);
}

// One in ten is the neighbour's.
Digest NameOf(const Naming& naming, uint64_t vm, uint64_t index) {
  const uint64_t owner = index % 10 == 0 ? vm / 2 : kVmCount + vm;
  const uint64_t numbers[] = {owner, index};
  return naming.ChunkName(std::as_bytes(std::span(numbers)));
}

void BackUp(Repository& repository, uint64_t vm, uint64_t chunk_count, size_t stored_size) {
  const std::string id = "b" + std::to_string(vm);
  const std::unique_ptr<Session> session = Take(repository.OpenSession(
      {repository.naming().Pseudonym(std::to_string(vm)), "point-" + id, {1, vm + 1}}));
  const uint64_t size = chunk_count * kBlockSize;
  const std::unique_ptr<DiskWriter> writer = Take(session->OpenDisk("d", size, std::nullopt));
  // What LZ4 makes of a block of one byte; nobody decodes it here.
  const ByteVector stored(stored_size, std::byte{7});
  for (uint64_t index = 0; index < chunk_count; ++index) {
    NewRecord record;
    record.codec = Codec::kLz4;
    record.name = NameOf(repository.naming(), vm, index);
    record.plain_size = kBlockSize;
    record.stored = stored;
    static_cast<void>(Take(writer->Put(index, record)));
  }
  const std::optional<Digest> root = Take(writer->Finish());
  static_cast<void>(Take(session->Commit({id, "", {{"d", root, size}}, {}})));
}

// Of names that are there, in an order that is as good as random, as a restore of old blocks asks.
double LookupsPerSecond(Repository& repository, uint64_t chunk_count) {
  const uint64_t of_a_vm = chunk_count / kVmCount;
  const auto begun = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < kLookups; ++i) {
    const uint64_t index = i * 0x9E3779B97F4A7C15 % of_a_vm;
    if (!repository.Has(NameOf(repository.naming(), i % kVmCount, index))) {
      Fail(Status(reason::kChunkMissing, "look up a name that was written"));
    }
  }
  return static_cast<double>(kLookups) / SecondsSince(begun);
}

double PeakMib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

int Run(const std::string& folder, uint64_t chunk_count, size_t stored_size) {
  RepositoryLimits limits;
  limits.seal_in_background = true;
  if (!Repository::ReadIdentity(SystemFiles(), folder).ok()) {
    static_cast<void>(Take(Repository::Create(SystemFiles(), folder)));
    const auto repository = Take(Repository::Open(SystemFiles(), folder, false, limits));
    const auto begun = std::chrono::steady_clock::now();
    for (uint64_t vm = 0; vm < kVmCount; ++vm) {
      BackUp(*repository, vm, chunk_count / kVmCount, stored_size);
    }
    std::fprintf(stderr, "written in %.1f s, peak %.0f MiB; run it again to collect\n",
                 SecondsSince(begun), PeakMib());
    return 0;
  }
  // In a process of its own, so that its peak is that of the collection.
  const auto repository = Take(Repository::Open(SystemFiles(), folder, false, limits));
  const uint64_t stored = repository->info().stored;
  const double lookups = LookupsPerSecond(*repository, chunk_count);
  for (uint64_t vm = 0; vm < kVmCount; vm += 2) {
    Check(repository->RemoveBackup(repository->naming().Pseudonym(std::to_string(vm)),
                                   "b" + std::to_string(vm)));
  }
  const double opened = PeakMib();
  CollectOptions options;
  options.token = {1, 1000};
  options.undo_window = 0;
  const Cancel cancel;
  Progress progress;
  const auto begun = std::chrono::steady_clock::now();
  const CollectReport report = Take(Collect(repository.get(), options, &cancel, &progress));
  std::printf(
      "{\"chunks\":%llu,\"stored_bytes\":%llu,\"lookups_per_second\":%.0f,\"seconds\":%.1f,"
      "\"freed_bytes\":%llu,"
      "\"copied_bytes\":%llu,\"deleted_packs\":%llu,\"open_mib\":%.0f,\"peak_mib\":%.0f}\n",
      static_cast<unsigned long long>(chunk_count), static_cast<unsigned long long>(stored),
      lookups, SecondsSince(begun), static_cast<unsigned long long>(report.deleted.size),
      static_cast<unsigned long long>(report.copied.size),
      static_cast<unsigned long long>(report.deleted.count), opened, PeakMib());
  return 0;
}

}  // namespace
}  // namespace blockferry

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "usage: collection FOLDER CHUNKS [STORED_BYTES]\n");
    return 2;
  }
  const size_t stored_size = argc == 4 ? std::strtoull(argv[3], nullptr, 10) : 260;
  return blockferry::Run(argv[1], std::strtoull(argv[2], nullptr, 10), stored_size);
}
