// Thirty days of many disks in one repository on a real file system, through the shipped line: each
// day every disk changes by 1 to 5 %, some are resized, all are backed up, what is old is removed
// and the repository is collected. Every backup that is kept restores to what the disk was on its
// day.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>

#include "core/test_clock.h"
#include "repository/collector.h"
#include "repository/model_repository.h"
#include "stream/memory_channel.h"
#include "stream/pipeline.h"
#include "stream/restore_disk.h"
#include "target/chunk_store.h"
#include "target/disk_target.h"

namespace blockferry {
namespace {

constexpr uint64_t kDays = 30;
constexpr uint64_t kDay = 86'400;  // Seconds.
constexpr uint64_t kDisks = 2;
// Kept of each disk: so many of the last days, and each seventh day.
constexpr uint64_t kDailies = 7;

using Random = std::mt19937_64;

struct Disk {
  uint64_t size = 0;
  std::map<uint64_t, Content> blocks;  // Others are zeroes.

  uint64_t block_count() const { return BlockCountOf(size); }
  ByteVector BytesAt(uint64_t index) const {
    const auto found = blocks.find(index);
    ByteVector bytes = found == blocks.end() ? ByteVector(kBlockSize) : BytesOf(found->second);
    bytes.resize(BlockSizeAt(size, index));
    return bytes;
  }
};

class DiskSource final : public BlockSource {
 public:
  explicit DiskSource(const Disk* disk) : disk_(disk) {}
  uint64_t size_bytes() const override { return disk_->size; }
  Result<Extent> ExtentAt(uint64_t offset) override {
    const uint64_t index = offset / kBlockSize;
    const uint64_t end = std::min(disk_->size, (index + 1) * kBlockSize);
    return Extent{offset, end - offset, disk_->blocks.contains(index), true};
  }
  Status Submit(uint64_t offset, std::span<std::byte> buffer) override {
    reads_.emplace_back(offset, buffer);
    return {};
  }
  Status Await() override {
    auto [offset, buffer] = reads_.front();
    reads_.pop_front();
    while (!buffer.empty()) {
      const ByteVector block = disk_->BytesAt(offset / kBlockSize);
      const size_t skip = offset % kBlockSize;
      const size_t size = std::min(block.size() - skip, buffer.size());
      std::copy_n(block.begin() + static_cast<ptrdiff_t>(skip), size, buffer.begin());
      buffer = buffer.subspan(size);
      offset += size;
    }
    return {};
  }

 private:
  const Disk* disk_;
  std::deque<std::pair<uint64_t, std::span<std::byte>>> reads_;
};

// Compares what a restore writes, and counts what it leaves out.
class ComparingTarget final : public DiskTarget {
 public:
  explicit ComparingTarget(const Disk* disk) : disk_(disk), lacking_(disk->blocks) {}
  Status Write(uint64_t offset, Bytes bytes) override {
    std::lock_guard lock(mutex_);
    while (!bytes.empty()) {
      const uint64_t index = offset / kBlockSize;
      const ByteVector expected = disk_->BytesAt(index);
      is_equal_ = is_equal_ && offset % kBlockSize == 0 && bytes.size() >= expected.size() &&
                  Equal(bytes.first(expected.size()), expected);
      if (!is_equal_) return {};
      lacking_.erase(index);
      bytes = bytes.subspan(expected.size());
      offset += expected.size();
    }
    return {};
  }
  Status Finish() override { return {}; }
  bool is_equal() const { return is_equal_ && lacking_.empty(); }

 private:
  const Disk* disk_;
  std::mutex mutex_;
  std::map<uint64_t, Content> lacking_;
  bool is_equal_ = true;
};

class Month {
 public:
  struct Counts {
    uint64_t backups = 0, resized = 0, removed = 0, restored = 0, kept = 0, deleted_packs = 0,
             copied_packs = 0, patched_pages = 0;
  };
  Counts counts;

  Month(std::string folder, uint64_t seed, uint64_t disks)
      : random_(seed), folder_(std::move(folder)), disks_(disks), history_(disks) {
    EXPECT_TRUE(Repository::Create(SystemFiles(), folder_, nullptr, clock_).ok());
    Open();
    for (Disk& disk : disks_) {
      disk.size = Size();
      Fill(&disk, 0);
    }
  }

  void Day(uint64_t day) {
    for (size_t i = 0; i < disks_.size(); ++i) {
      const std::vector<uint64_t> changed = Change(&disks_[i], day);
      const Status done = BackUp(i, day, changed);
      ASSERT_TRUE(done.ok()) << done.message();
    }
    Retain(day);
    CollectOptions options;
    options.token = {1, ++number_};
    options.undo_window = 2 * kDay;
    const Cancel cancel;
    Progress progress;
    const Result<CollectReport> report = Collect(repository_.get(), options, &cancel, &progress);
    ASSERT_TRUE(report.ok()) << report.status().message();
    counts.deleted_packs += report->deleted.count;
    counts.copied_packs += report->copied.count;
    Open();
    for (int i = 0; i < 3; ++i) {
      const size_t which = random_() % disks_.size();
      auto one = history_[which].begin();
      std::advance(one, random_() % history_[which].size());
      Restore(which, one->first);
    }
    clock_.reading.since_boot += kDay;
    clock_.reading.wall += kDay;
  }

  void RestoreAll() {
    for (size_t i = 0; i < disks_.size(); ++i) {
      for (const auto& [day, disk] : history_[i]) {
        ++counts.kept;
        Restore(i, day);
        if (testing::Test::HasFailure()) return;
      }
    }
  }

 private:
  void Open() {
    repository_.reset();
    RepositoryLimits limits;
    limits.pack_size = uint64_t{4} << 20;
    limits.seal_in_background = true;
    limits.index_memory = 64 * 1024;
    limits.clock = &clock_;
    Result<std::unique_ptr<Repository>> opened =
        Repository::Open(SystemFiles(), folder_, false, limits);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    repository_ = *std::move(opened);
  }

  std::string Vm(size_t i) { return repository_->naming().Pseudonym("vm" + std::to_string(i)); }
  static std::string BackupOf(size_t i, uint64_t day) {
    return std::to_string(i) + "-" + std::to_string(day);
  }

  uint64_t Size() { return (120 + random_() % 200) * kBlockSize + random_() % 3 * 512; }

  Content NewContent() {
    // One in eight is known from another disk.
    if (random_() % 8 != 0) ++families_;
    return {random_() % 8 == 0 ? 1 + static_cast<uint32_t>(random_() % families_) : families_, 0};
  }

  void Fill(Disk* disk, uint64_t from) {
    for (uint64_t index = from; index < disk->block_count(); ++index) {
      if (random_() % 3 != 0) disk->blocks[index] = NewContent();
    }
  }

  // The indexes that differ from the day before; all when the size does.
  std::vector<uint64_t> Change(Disk* disk, uint64_t day) {
    if (day == 0) return {};
    if (random_() % 20 == 0) {
      const uint64_t before = disk->block_count();
      disk->size = Size();
      std::erase_if(disk->blocks,
                    [&](const auto& entry) { return entry.first >= disk->block_count(); });
      if (disk->block_count() > before) Fill(disk, before);
      ++counts.resized;
    }
    std::set<uint64_t> changed;
    const uint64_t count = 1 + disk->block_count() * (1 + random_() % 5) / 100;
    while (changed.size() < count) {
      const uint64_t index = random_() % disk->block_count();
      changed.insert(index);
      const auto found = disk->blocks.find(index);
      if (found != disk->blocks.end() && random_() % 2 == 0) {
        found->second.version = 1 + static_cast<uint32_t>(random_() % 15);
        ++counts.patched_pages;
      } else if (random_() % 10 == 0) {
        disk->blocks.erase(index);
      } else {
        disk->blocks[index] = NewContent();
      }
    }
    return {changed.begin(), changed.end()};
  }

  Status BackUp(size_t i, uint64_t day, const std::vector<uint64_t>& changed) {
    const Disk& disk = disks_[i];
    ASSIGN_OR_RETURN(
        const std::unique_ptr<Session> session,
        repository_->OpenSession({Vm(i), "point-" + std::to_string(++number_), {1, number_}}));
    CommitOptions options;
    options.backup_id = BackupOf(i, day);
    std::optional<Digest> base_root;
    ChangedBlockMap map = ChangedBlockMap::All();
    if (day > 0 && history_[i].at(day - 1).size == disk.size) {
      ASSIGN_OR_RETURN(const std::vector<ListedManifest> listed, repository_->ListManifests(Vm(i)));
      options.base_backup_id = listed.back().backup_id;
      base_root = listed.back().manifest->disks.at(0).root;
      std::vector<uint64_t> pairs;
      for (const uint64_t index : changed) {
        pairs.insert(pairs.end(), {index * kBlockSize, BlockSizeAt(disk.size, index)});
      }
      ASSIGN_OR_RETURN(map, ChangedBlockMap::FromExtents(pairs, disk.size));
    }
    DiskSource source(&disk);
    Progress progress;
    ASSIGN_OR_RETURN(
        const std::unique_ptr<ChunkStore> target,
        ChunkStore::Open(session.get(), "vda", disk.size, {base_root, base_root}, &progress));
    BlockPlan plan(&source, &map);
    RETURN_IF_ERROR(plan.Count());
    MemoryChannel channel(target.get());
    const Cancel cancel;
    const Line line{
        &source,   &plan,  &repository_->naming(), Compression{Codec::kLz4}, &channel, &cancel,
        &progress, nullptr};
    ASSIGN_OR_RETURN(const std::optional<Digest> root, MoveDiskInParallel(line, {2}));
    options.disks.push_back({"vda", root, disk.size});
    RETURN_IF_ERROR(session->Commit(options));
    history_[i][day] = disk;
    ++counts.backups;
    return {};
  }

  void Retain(uint64_t day) {
    for (size_t i = 0; i < disks_.size(); ++i) {
      for (auto at = history_[i].begin(); at != history_[i].end();) {
        const bool is_kept = at->first + kDailies > day || at->first % 7 == 0;
        if (is_kept) {
          ++at;
          continue;
        }
        const Status removed = repository_->RemoveBackup(Vm(i), BackupOf(i, at->first));
        EXPECT_TRUE(removed.ok()) << removed.message();
        ++counts.removed;
        at = history_[i].erase(at);
      }
    }
  }

  void Restore(size_t i, uint64_t day) {
    SCOPED_TRACE("disk " + std::to_string(i) + " of day " + std::to_string(day));
    const Disk& disk = history_[i].at(day);
    const Result<std::vector<ListedManifest>> listed = repository_->ListManifests(Vm(i));
    ASSERT_TRUE(listed.ok());
    const auto found = std::find_if(listed->begin(), listed->end(), [&](const ListedManifest& one) {
      return one.manifest && !one.removed_time && one.backup_id == BackupOf(i, day);
    });
    ASSERT_NE(found, listed->end()) << "it is lost";
    const ManifestDisk& stored = found->manifest->disks.at(0);
    EXPECT_EQ(stored.size, disk.size);
    ComparingTarget target(&disk);
    const Cancel cancel;
    Progress progress;
    const Status done =
        RestoreDisk(repository_.get(), {stored.root, stored.size}, &target, &cancel, &progress);
    EXPECT_TRUE(done.ok()) << done.message();
    EXPECT_TRUE(target.is_equal());
    ++counts.restored;
  }

  Random random_;
  const std::string folder_;
  TestClock clock_;
  std::unique_ptr<Repository> repository_;
  std::vector<Disk> disks_;
  std::vector<std::map<uint64_t, Disk>> history_;  // Of each disk, by day: what is kept.
  uint64_t number_ = 0;
  uint32_t families_ = 1;
};

TEST(MonthModel, RestoresEveryDayThatIsKept) {
  const uint64_t seed = NumberFrom("SEED", std::random_device()());
  const uint64_t disks = NumberFrom("DISKS", kDisks);
  std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  SCOPED_TRACE("SEED=" + std::to_string(seed) + " DISKS=" + std::to_string(disks));
  std::string parent = (std::filesystem::temp_directory_path() / "bf-month-XXXXXX").string();
  ASSERT_NE(mkdtemp(parent.data()), nullptr);
  Month::Counts counts;
  {
    Month month(parent + "/r", seed, disks);
    for (uint64_t day = 0; day < kDays && !HasFailure(); ++day) month.Day(day);
    if (!HasFailure()) month.RestoreAll();
    counts = month.counts;
  }
  std::filesystem::remove_all(parent);
  ShowCounts({{"backups", counts.backups},
              {"resized", counts.resized},
              {"removed", counts.removed},
              {"restored", counts.restored},
              {"kept", counts.kept},
              {"deleted packs", counts.deleted_packs},
              {"copied packs", counts.copied_packs},
              {"changed pages", counts.patched_pages}});
  EXPECT_EQ(counts.backups, disks * kDays);
  // Of few disks nearly everything that goes is still needed by a day that stays.
  if (disks >= 10) {
    EXPECT_GT(counts.deleted_packs, 0u);
  }
}

}  // namespace
}  // namespace blockferry
