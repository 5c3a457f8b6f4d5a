// The product's own line with another size of a block: what it stores, what it reads, how fast.
//
//   bench/block_size.sh CORPUS
//
// which builds this program once for each size. By itself: block_size FOLDER VM=IMAGE[=BEFORE]…
// (VM in hex digits)
// backs the images up one after another, in one repository in FOLDER. BEFORE is the image of the
// VM's last backup: the blocks that differ from it are also counted, in pages of 4 KiB and in
// blocks. One JSON line for each backup, and one for the restore of the first.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "line.h"
#include "repository/repository.h"
#include "repository/session.h"
#include "source/raw_source.h"
#include "stream/memory_channel.h"
#include "stream/pipeline.h"
#include "stream/restore_disk.h"
#include "target/chunk_store.h"
#include "target/raw_target.h"

namespace blockferry {
namespace {

uint64_t BytesIn(const std::string& folder) {
  uint64_t size = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) size += entry.file_size();
  }
  return size;
}

struct Difference {
  uint64_t page_bytes = 0;
  uint64_t block_bytes = 0;
};

// What a tracker with grains of the block's size would have marked.
Difference Compare(const std::string& before, const std::string& image) {
  Difference difference;
  const int fds[] = {open(before.c_str(), O_RDONLY), open(image.c_str(), O_RDONLY)};
  ByteVector old_bytes(kBlockSize), new_bytes(kBlockSize);
  for (uint64_t at = 0;; at += kBlockSize) {
    const auto offset = static_cast<off_t>(at);
    const ssize_t size = pread(fds[1], new_bytes.data(), kBlockSize, offset);
    if (size <= 0 || pread(fds[0], old_bytes.data(), kBlockSize, offset) != size) break;
    uint64_t pages = 0;
    for (uint64_t page = 0; page < static_cast<uint64_t>(size); page += kPageSize) {
      pages += std::memcmp(&old_bytes[page], &new_bytes[page], kPageSize) != 0;
    }
    difference.page_bytes += pages * kPageSize;
    if (pages > 0) difference.block_bytes += static_cast<uint64_t>(size);
  }
  close(fds[0]);
  close(fds[1]);
  return difference;
}

StoredDisk BackUp(Repository* repository, const std::string& vm, const std::string& image,
                  uint64_t number, const Cancel* cancel, Progress* progress) {
  const uint64_t size_bytes = std::filesystem::file_size(image);
  const std::string id = std::to_string(number);
  std::unique_ptr<Session> session =
      Take(repository->OpenSession({vm, "point-" + id, {1, number}}));
  const std::unique_ptr<BlockSource> source = Take(RawSource::Open(image, size_bytes, cancel));
  const ChangedBlockMap changed = ChangedBlockMap::All();
  BlockPlan plan(source.get(), &changed);
  const std::unique_ptr<ChunkStore> target =
      Take(ChunkStore::Open(session.get(), "disk", size_bytes, {}, progress));
  MemoryChannel channel(target.get());
  const std::optional<Digest> root = Take(MoveDiskInParallel(
      {source.get(), &plan, &repository->naming(), {}, &channel, cancel, progress}));
  Take(session->Commit({"backup-" + id, "", {{"disk", root, size_bytes}}, {}}));
  return {root, size_bytes};
}

void Restore(Repository* repository, const StoredDisk& disk, const std::string& path) {
  const Cancel cancel;
  Progress progress;
  std::unique_ptr<DiskTarget> target = Take(RawTarget::Create(path, disk.size_bytes));
  Status status = RestoreDisk(repository, disk, target.get(), &cancel, &progress);
  if (status.ok()) status = target->Finish();
  if (!status.ok()) Fail(status);
}

void Run(const std::string& folder, const std::vector<std::string>& steps) {
  Take(Repository::Create(SystemFiles(), folder));
  RepositoryLimits limits;
  limits.seal_in_background = true;
  std::unique_ptr<Repository> repository =
      Take(Repository::Open(SystemFiles(), folder, false, limits));
  StoredDisk first;
  for (size_t number = 1; number <= steps.size(); ++number) {
    const std::string& step = steps[number - 1];
    const size_t equals = step.find('=');
    const size_t second = step.find('=', equals + 1);
    std::string vm = step.substr(0, equals);
    vm.insert(0, 32 - std::min<size_t>(vm.size(), 32), '0');
    const std::string image = step.substr(equals + 1, second - equals - 1);
    Difference difference;
    if (second != std::string::npos) difference = Compare(step.substr(second + 1), image);
    const uint64_t bytes_before = BytesIn(folder);
    const uint64_t names_before = repository->info().chunk_count;
    const Cancel cancel;
    Progress progress;
    const Times begin = Times::Now();
    const StoredDisk disk = BackUp(repository.get(), vm, image, number, &cancel, &progress);
    const Times took = Times::Now().Since(begin);
    if (number == 1) first = disk;
    std::printf(
        "{\"block\": %u, \"image\": \"%s\", \"added\": %llu, \"names\": %llu, \"read\": %llu, "
        "\"wall\": %.3f, \"cpu\": %.3f, \"changed_pages\": %llu, \"changed_blocks\": %llu}\n",
        kBlockSize, image.c_str(), static_cast<unsigned long long>(BytesIn(folder) - bytes_before),
        static_cast<unsigned long long>(repository->info().chunk_count - names_before),
        static_cast<unsigned long long>(progress.read_bytes.value()), took.wall, took.cpu,
        static_cast<unsigned long long>(difference.page_bytes),
        static_cast<unsigned long long>(difference.block_bytes));
    std::fflush(stdout);
  }
  const std::string path = folder + "/restored";
  const Times begin = Times::Now();
  Restore(repository.get(), first, path);
  const Times took = Times::Now().Since(begin);
  std::printf("{\"block\": %u, \"restored\": %llu, \"wall\": %.3f, \"cpu\": %.3f}\n", kBlockSize,
              static_cast<unsigned long long>(first.size_bytes), took.wall, took.cpu);
  unlink(path.c_str());
}

}  // namespace
}  // namespace blockferry

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: block_size FOLDER VM=IMAGE[=BEFORE]…\n");
    return 2;
  }
  blockferry::Run(argv[1], {argv + 2, argv + argc});
  return 0;
}
