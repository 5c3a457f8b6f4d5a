// What patches store and what they cost a restore, over many days of a database disk.
//
//   bench/patches.sh CORPUS
//
// which builds this program once for each share. By itself: patches FOLDER IMAGE DAYS
// copies the image into FOLDER and backs it up; then, each day, rewrites half of 2 % of its pages,
// four of five among a tenth of the disk, and backs it up over the day before. One JSON line for
// each day and for the restores of the first and the last; the last one is compared.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
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

constexpr double kChangedShare = 0.02;

// A disk that is backed up day after day.
class Bench {
 public:
  Bench(const std::string& folder, const std::string& image)
      : image_(folder + "/disk.raw"), restored_(folder + "/restored.raw") {
    std::filesystem::create_directory(folder);
    const std::string copy = "cp --sparse=always " + image + " " + image_;
    if (std::system(copy.c_str()) != 0) _exit(1);
    size_bytes_ = std::filesystem::file_size(image_);
    const std::string path = folder + "/repository";
    Take(Repository::Create(SystemFiles(), path));
    RepositoryLimits limits;
    limits.seal_in_background = true;
    repository_ = Take(Repository::Open(SystemFiles(), path, false, limits));
    FindPages();
  }

  void RunDay(uint64_t day) {
    if (day > 1) ChangePages();
    const uint64_t stored_before = repository_->info().stored;
    const Cancel cancel;
    Progress progress;
    const std::string id = std::to_string(day);
    const Times begin = Times::Now();
    std::unique_ptr<Session> session =
        Take(repository_->OpenSession({std::string(32, 'c'), "point-" + id, {1, day}}));
    const std::unique_ptr<BlockSource> source = Take(RawSource::Open(image_, size_bytes_, &cancel));
    const ChangedBlockMap changed = ChangedBlockMap::All();
    BlockPlan plan(source.get(), &changed);
    const std::unique_ptr<ChunkStore> target =
        Take(ChunkStore::Open(session.get(), "disk", size_bytes_, {root_, root_}, &progress));
    MemoryChannel channel(target.get());
    root_ = Take(MoveDiskInParallel(
        {source.get(), &plan, &repository_->naming(), {}, &channel, &cancel, &progress}));
    Take(session->Commit({"backup-" + id, "", {{"disk", root_, size_bytes_}}, {}}));
    const Times took = Times::Now().Since(begin);
    if (day == 1) first_root_ = root_;
    std::printf("{\"day\": %llu, \"added\": %llu, \"wall\": %.3f, \"cpu\": %.3f}\n",
                static_cast<unsigned long long>(day),
                static_cast<unsigned long long>(repository_->info().stored - stored_before),
                took.wall, took.cpu);
    std::fflush(stdout);
  }

  void RestoreBoth() {
    for (int round = 0; round < 3; ++round) {
      Restore("first", *first_root_);
      Restore("last", *root_);
    }
    const std::string compare = "cmp " + image_ + " " + restored_;
    if (std::system(compare.c_str()) != 0) _exit(1);
  }

 private:
  // Pages with data, in the order of the disk.
  void FindPages() {
    const int fd = open(image_.c_str(), O_RDONLY);
    for (off_t at = lseek(fd, 0, SEEK_DATA); at >= 0; at = lseek(fd, at, SEEK_DATA)) {
      const off_t end = lseek(fd, at, SEEK_HOLE);
      for (; at < end; at += kPageSize) pages_.push_back(static_cast<uint64_t>(at));
    }
    close(fd);
  }

  void ChangePages() {
    const int fd = open(image_.c_str(), O_RDWR);
    const size_t hot_count = pages_.size() / 10;
    ByteVector page(kPageSize);
    for (size_t i = 0; i < static_cast<size_t>(pages_.size() * kChangedShare); ++i) {
      const bool is_hot = random_() % 5 != 0;
      const size_t which =
          is_hot ? (random_() % hot_count) * 10 % pages_.size() : random_() % pages_.size();
      const auto offset = static_cast<off_t>(pages_[which] & ~uint64_t{kPageSize - 1});
      if (pread(fd, page.data(), kPageSize, offset) < 0) _exit(1);
      for (size_t at = 0; at < kPageSize / 2; at += 8) {
        const uint64_t word = random_();
        std::memcpy(&page[at], &word, 8);
      }
      if (pwrite(fd, page.data(), kPageSize, offset) < 0) _exit(1);
    }
    close(fd);
  }

  void Restore(const char* which, const Digest& root) {
    unlink(restored_.c_str());
    const Cancel cancel;
    Progress progress;
    const Times begin = Times::Now();
    std::unique_ptr<DiskTarget> target = Take(RawTarget::Create(restored_, size_bytes_));
    Status status =
        RestoreDisk(repository_.get(), {root, size_bytes_}, target.get(), &cancel, &progress);
    const Times took = Times::Now().Since(begin);
    if (status.ok()) status = target->Finish();
    if (!status.ok()) Fail(status);
    std::printf("{\"restored\": \"%s\", \"wall\": %.3f, \"cpu\": %.3f}\n", which, took.wall,
                took.cpu);
    std::fflush(stdout);
  }

  const std::string image_;
  const std::string restored_;
  uint64_t size_bytes_ = 0;
  std::unique_ptr<Repository> repository_;
  std::vector<uint64_t> pages_;
  std::mt19937_64 random_{2026};
  std::optional<Digest> root_;
  std::optional<Digest> first_root_;
};

}  // namespace
}  // namespace blockferry

int main(int argc, char** argv) {
  const int days = argc == 4 ? std::atoi(argv[3]) : 0;
  if (days < 1) {
    std::fprintf(stderr, "usage: patches FOLDER IMAGE DAYS\n");
    return 2;
  }
  blockferry::Bench bench(argv[1], argv[2]);
  for (int day = 1; day <= days; ++day) bench.RunDay(static_cast<uint64_t>(day));
  bench.RestoreBoth();
  return 0;
}
