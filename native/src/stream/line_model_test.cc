// The whole line, backup and restore, against a plain model of disks in memory.
//
// Each step changes disks at random and backs them up: over a base with marks that say too much, in
// full, after a resize, with a file call that crashes or fails, or from an older run that wakes up
// too late. After each step the listed backups are exactly those that were answered (or the one
// that lost its answer to a crash), and restoring gives what the model had at that point.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <string>

#include "core/crash_files.h"
#include "core/model_run.h"
#include "repository/pack_reader.h"
#include "repository/repository.h"
#include "stream/memory_channel.h"
#include "stream/pipeline.h"
#include "stream/restore_disk.h"
#include "target/chunk_store.h"
#include "target/disk_target.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
// SEED replays a run, WORLDS asks for a longer one; a world takes 0.15 s of one core.
constexpr uint64_t kWorlds = 15;
constexpr int kStepsOfAWorld = 40;

using Random = std::mt19937_64;
using Block = std::shared_ptr<const ByteVector>;

bool OneIn(Random& random, unsigned count) { return random() % count == 0; }

// Blocks that are not there are zeroes, and no block that is there is all zeroes.
struct ModelDisk {
  uint64_t size = 0;
  std::map<uint64_t, Block> blocks;

  uint64_t block_count() const { return BlockCountOf(size); }
  void Set(uint64_t index, ByteVector bytes) {
    bytes.resize(BlockSizeAt(size, index));
    if (IsZero(bytes)) {
      blocks.erase(index);
    } else {
      blocks[index] = std::make_shared<const ByteVector>(std::move(bytes));
    }
  }
  void Resize(uint64_t new_size) {
    const uint64_t old_count = block_count();
    size = new_size;
    std::erase_if(blocks, [&](const auto& entry) { return entry.first >= block_count(); });
    for (const uint64_t index : {old_count, block_count()}) {
      const auto last = index == 0 ? blocks.end() : blocks.find(index - 1);
      if (last != blocks.end()) Set(last->first, ByteVector(*last->second));
    }
  }
};

bool operator==(const ModelDisk& a, const ModelDisk& b) {
  return a.size == b.size && std::equal(a.blocks.begin(), a.blocks.end(), b.blocks.begin(),
                                        b.blocks.end(), [](const auto& one, const auto& other) {
                                          return one.first == other.first &&
                                                 *one.second == *other.second;
                                        });
}

using ModelVm = std::map<std::string, ModelDisk>;

ByteVector RandomBlock(Random& random) {
  ByteVector bytes(kBlockSize);
  const unsigned kind = random() % 4;
  if (kind == 0) {  // One byte somewhere, at the end in half of the cases.
    bytes[OneIn(random, 2) ? random() % 600 : random() % bytes.size()] = std::byte{1};
    return bytes;
  }
  uint64_t word = random();
  for (size_t at = 0; at < bytes.size(); at += 8) {
    // Kind 1 shrinks, the others do not.
    word = kind == 1 ? word + (at % 512 == 0) : word * 6364136223846793005u + 1442695040888963407u;
    StoreLe(bytes.data() + at, word ^ (kind == 1 ? 0 : word >> 29));
  }
  return bytes;
}

uint64_t RandomSize(Random& random) {
  static constexpr uint64_t kBlockCounts[] = {0,   1,   2,    63,   64,   65,
                                              127, 128, 4095, 4096, 4097, 4160};
  static constexpr uint64_t kRests[] = {0, 0, 0, 1, 511, 512, 4096, 65535};
  return kBlockCounts[random() % std::size(kBlockCounts)] * kBlockSize +
         kRests[random() % std::size(kRests)];
}

// Indexes gather at the edges of map nodes.
uint64_t RandomIndex(Random& random, uint64_t count) {
  static constexpr uint64_t kEdges[] = {0, 63, 64, 4032, 4095, 4096};
  if (OneIn(random, 4)) return count - 1;
  if (OneIn(random, 2)) return std::min(count - 1, kEdges[random() % std::size(kEdges)]);
  return random() % count;
}

void ChangeDisk(Random& random, ModelDisk* disk) {
  if (OneIn(random, 8)) disk->Resize(RandomSize(random));
  if (disk->size == 0) return;
  // Old blocks go, so that no step takes long.
  std::erase_if(disk->blocks,
                [&](const auto&) { return disk->blocks.size() > 12 && OneIn(random, 2); });
  static std::deque<Block> seen;  // Content that comes back, also on other disks.
  const unsigned count = random() % 6;
  for (unsigned i = 0; i < count; ++i) {
    const uint64_t first = RandomIndex(random, disk->block_count());
    const uint64_t end = std::min(disk->block_count(), first + 1 + random() % 4);
    for (uint64_t index = first; index < end; ++index) {
      ByteVector bytes = RandomBlock(random);
      if (OneIn(random, 4)) bytes.assign(bytes.size(), std::byte{0});
      if (OneIn(random, 4) && !seen.empty()) bytes = *seen[random() % seen.size()];
      const auto before = disk->blocks.find(index);
      if (OneIn(random, 3) && before != disk->blocks.end()) {
        bytes = *before->second;
        for (unsigned changes = 1 + random() % 3; changes > 0; --changes) {
          bytes[random() % bytes.size()] ^= std::byte{0x40};
        }
      }
      seen.push_back(std::make_shared<const ByteVector>(bytes));
      if (seen.size() > 50) seen.pop_front();
      disk->Set(index, std::move(bytes));
    }
  }
}

// Where bytes are not zero, or differ from another disk, as ascending ranges of pieces of 512 bytes
// and then widened at random: whoever answers may say too much, never too little.
class ByteRanges {
 public:
  void Add(uint64_t begin, uint64_t end) {
    if (!ranges_.empty() && ranges_.back().second >= begin) {
      ranges_.back().second = std::max(ranges_.back().second, end);
    } else {
      ranges_.emplace_back(begin, end);
    }
  }
  void Widen(Random& random, uint64_t size) {
    std::vector<std::pair<uint64_t, uint64_t>> narrow;
    narrow.swap(ranges_);
    for (auto [begin, end] : narrow) {
      if (OneIn(random, 2)) begin -= std::min<uint64_t>(begin, random() % (2 * kBlockSize));
      if (OneIn(random, 2)) end = std::min<uint64_t>(size, end + random() % (2 * kBlockSize));
      Add(ranges_.empty() ? begin : std::max(begin, ranges_.back().first), end);
    }
  }
  // Whether `offset` lies inside a range, and where that ends being so.
  std::pair<bool, uint64_t> At(uint64_t offset, uint64_t size) const {
    for (const auto& [begin, end] : ranges_) {
      if (offset < begin) return {false, begin};
      if (offset < end) return {true, end};
    }
    return {false, size};
  }
  std::vector<uint64_t> Pairs() const {
    std::vector<uint64_t> pairs;
    for (const auto& [begin, end] : ranges_) pairs.insert(pairs.end(), {begin, end - begin});
    return pairs;
  }

 private:
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;
};

// Calls add(begin, end) for each piece of 512 bytes of the block that differs from `base`.
void AddDifferences(uint64_t index, const Block& block, const Block& base, ByteRanges* ranges) {
  const Bytes present = block != nullptr ? *block : *base;
  for (uint64_t at = 0; at < present.size(); at += 512) {
    const size_t size = std::min<size_t>(512, present.size() - at);
    const Bytes one = block == nullptr ? Bytes() : Bytes(*block).subspan(at, size);
    const Bytes other = base == nullptr ? Bytes() : Bytes(*base).subspan(at, size);
    const bool same = block == nullptr  ? IsZero(other)
                      : base == nullptr ? IsZero(one)
                                        : Equal(one, other);
    if (!same) ranges->Add(index * kBlockSize + at, index * kBlockSize + at + size);
  }
}

ByteRanges DifferencesOf(const ModelDisk& disk, const ModelDisk& base) {
  ByteRanges ranges;
  auto one = disk.blocks.begin();
  auto other = base.blocks.begin();
  while (one != disk.blocks.end() || other != base.blocks.end()) {
    const uint64_t index = std::min(one == disk.blocks.end() ? UINT64_MAX : one->first,
                                    other == base.blocks.end() ? UINT64_MAX : other->first);
    const Block block = one != disk.blocks.end() && one->first == index ? (one++)->second : nullptr;
    const Block before =
        other != base.blocks.end() && other->first == index ? (other++)->second : nullptr;
    AddDifferences(index, block, before, &ranges);
  }
  return ranges;
}

class ModelSource final : public BlockSource {
 public:
  ModelSource(const ModelDisk* disk, ByteRanges data, ByteRanges changed, uint64_t seed)
      : disk_(disk), data_(std::move(data)), changed_(std::move(changed)), random_(seed) {}

  uint64_t size_bytes() const override { return disk_->size; }

  Result<Extent> ExtentAt(uint64_t offset) override {
    const auto [allocated, data_end] = data_.At(offset, disk_->size);
    const auto [changed, changed_end] = changed_.At(offset, disk_->size);
    uint64_t end = std::min({data_end, changed_end, disk_->size});
    // An answer may end early.
    if (OneIn(random_, 4)) end = offset + 1 + random_() % (end - offset);
    return Extent{offset, end - offset, allocated, changed};
  }
  Status Submit(uint64_t offset, std::span<std::byte> buffer) override {
    reads_.emplace_back(offset, buffer);
    return {};
  }
  Status Await() override {
    const auto [offset, buffer] = reads_.front();
    reads_.pop_front();
    for (uint64_t done = 0; done < buffer.size(); done += kBlockSize) {
      const uint64_t index = (offset + done) / kBlockSize;
      const std::span<std::byte> to = buffer.subspan(done, BlockSizeAt(disk_->size, index));
      const auto found = disk_->blocks.find(index);
      if (found == disk_->blocks.end()) {
        std::fill(to.begin(), to.end(), std::byte{0});
      } else {
        std::copy(found->second->begin(), found->second->end(), to.begin());
      }
    }
    return {};
  }

 private:
  const ModelDisk* disk_;
  ByteRanges data_;
  ByteRanges changed_;
  Random random_;
  std::deque<std::pair<uint64_t, std::span<std::byte>>> reads_;
};

class ModelTarget final : public DiskTarget {
 public:
  explicit ModelTarget(uint64_t size) { disk.size = size; }
  Status Write(uint64_t offset, Bytes bytes) override {
    std::lock_guard lock(mutex_);
    EXPECT_LE(offset + bytes.size(), disk.size);
    EXPECT_EQ(offset % kBlockSize, 0u);
    while (!bytes.empty()) {
      const uint64_t index = offset / kBlockSize;
      const size_t size = BlockSizeAt(disk.size, index);
      EXPECT_GE(bytes.size(), size);
      EXPECT_TRUE(disk.blocks.emplace(index, MakeBlock(bytes.first(size))).second);
      bytes = bytes.subspan(size);
      offset += size;
    }
    return {};
  }
  Status Finish() override { return {}; }

  ModelDisk disk;

 private:
  static Block MakeBlock(Bytes bytes) {
    return std::make_shared<const ByteVector>(bytes.begin(), bytes.end());
  }
  std::mutex mutex_;
};

// What ought to be in the repository under a backup's id.
struct ModelBackup {
  std::string id;
  std::string point_id;
  ModelVm vm;
};

class World {
 public:
  // Where packs are sealed in the background the same seed does the same but for the moment at
  // which a planned fault meets the sealing.
  explicit World(uint64_t seed)
      : random_(seed), limits_{(1 + random_() % 6) * 64 * 1024, 3, OneIn(random_, 2)} {
    // The index writes a file for each pack, now and then, or never.
    static constexpr size_t kIndexMemory[] = {1, 8 * 28 * 64, size_t{32} << 20};
    limits_.index_memory = kIndexMemory[random_() % 3];
    limits_.scratch_folder = "/";
    if (OneIn(random_, 3)) secret_ = Secret{Secret::Kind::kKey, ByteVector(32, std::byte{7})};
    EXPECT_TRUE(Repository::Create(files_, kFolder, secret()).ok());
    Open();
    for (const char* disk_id : {"vda", "vdb"}) AddDisk(disk_id);
  }

  void Step() {
    // A point that failed is taken up again in most cases: its disks stand still.
    if (!attempt_ || OneIn(random_, 4)) NewPoint();
    PlanFault();
    std::unique_ptr<Session> late = OneIn(random_, 8) ? StartLateRun() : nullptr;
    const Status answer = BackUp();
    const bool crashed = EndFault();
    if (late != nullptr && !crashed) ExpectFenced(late.get());
    late.reset();
    if (crashed || OneIn(random_, 10)) Restart(crashed);
    CheckList(answer);
    if (backups_.empty()) return;
    CheckBackup(backups_.back());
    if (OneIn(random_, 4)) CheckBackup(backups_[random_() % backups_.size()]);
  }

  // How often each kind of step came, for the test that counts them.
  struct Counts {
    int backups = 0, resumed = 0, crashes = 0, failures = 0, over_a_base = 0, fenced = 0;
    size_t patches = 0;
  };
  Counts counts;

  void CountPatches() {
    for (const std::string& path : files_.AllFiles()) {
      if (!path.starts_with(std::string(kFolder) + "/packs/")) continue;
      PackId id;
      ASSERT_TRUE(ParseHex(std::string_view(path).substr(path.size() - 37, 32), id));
      Result<PackTable> table = ReadPackTable(files_, path, repository_->info().repository_id, id);
      ASSERT_TRUE(table.ok()) << table.status().message();
      counts.patches += table->bases.size();
    }
  }

 private:
  void Open() {
    repository_.reset();
    Result<std::unique_ptr<Repository>> opened =
        Repository::Open(files_, kFolder, false, limits_, secret());
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    repository_ = *std::move(opened);
    EXPECT_TRUE(repository_->damaged_packs().empty());
  }

  const Secret* secret() const { return secret_ ? &*secret_ : nullptr; }

  void AddDisk(const std::string& disk_id) {
    ModelDisk disk;
    disk.Resize(RandomSize(random_));
    vm_[disk_id] = disk;
  }

  void NewPoint() {
    for (auto& [disk_id, disk] : vm_) ChangeDisk(random_, &disk);
    if (OneIn(random_, 12)) vm_.erase("vdb");
    if (OneIn(random_, 6) && !vm_.contains("vdb")) AddDisk("vdb");
    ++number_;
    attempt_ = ModelBackup{"", "point-" + std::to_string(number_), vm_};
  }

  void PlanFault() {
    // Few calls happen with few changes, so small numbers come more often.
    const uint64_t call = 1 + random_() % (1 + random_() % 80);
    crash_planned_ = OneIn(random_, 4);
    fault_planned_ = crash_planned_ || OneIn(random_, 6);
    if (crash_planned_) files_.CrashAt(call);
    if (fault_planned_ && !crash_planned_) {
      files_.FailAt(
          call, Status(OneIn(random_, 2) ? reason::kRepositoryFull : reason::kRepositoryUnreachable,
                       "planned"));
    }
  }

  // True when the process is to be taken for dead.
  bool EndFault() {
    const bool came = fault_planned_ && files_.planned_fault_came();
    if (!crash_planned_ || !came) files_.FailAt(0, {});
    counts.crashes += crash_planned_ && came ? 1 : 0;
    counts.failures += !crash_planned_ && came ? 1 : 0;
    return crash_planned_ && came;
  }

  void Restart(bool crashed) {
    using Survivor = CrashFiles::Survivor;
    static constexpr Survivor kSurvivors[] = {Survivor::kProcess, Survivor::kPlatter,
                                              Survivor::kMixture};
    repository_.reset();
    const Survivor survivor = kSurvivors[random_() % 3];
    files_.Restart(crashed ? survivor : Survivor::kPlatter, static_cast<uint32_t>(random_()));
    Open();
  }

  std::string Vm() { return repository_->naming().Pseudonym("vm"); }

  // An older run of the same VM, stopped in the middle.
  std::unique_ptr<Session> StartLateRun() {
    Result<std::unique_ptr<Session>> session =
        repository_->OpenSession({Vm(), "point-late-" + std::to_string(++token_), {1, token_}});
    if (!session.ok()) return nullptr;
    static_cast<void>(MoveOneDisk(**session, "vda", ModelDisk(vm_["vda"]), nullptr, {}).ok());
    return *std::move(session);
  }

  void ExpectFenced(Session* late) {
    // It never saw the newer run when that one failed before it could fence.
    Result<std::vector<ListedManifest>> listed = repository_->ListManifests(Vm());
    ASSERT_TRUE(listed.ok());
    if (!fencing_done_) return;
    Result<Manifest> manifest =
        late->Commit({"late-" + std::to_string(token_), "", {{"vda", std::nullopt, 0}}, {}});
    EXPECT_FALSE(manifest.ok());
    ++counts.fenced;
  }

  Status BackUp() {
    fencing_done_ = false;
    Result<std::unique_ptr<Session>> session =
        repository_->OpenSession({Vm(), attempt_->point_id, {1, ++token_}});
    RETURN_IF_ERROR(session);
    fencing_done_ = true;
    // The base is the newest backup, as the repository knows it.
    const ModelBackup* base = backups_.empty() || OneIn(random_, 5) ? nullptr : &backups_.back();
    std::map<std::string, ManifestDisk> base_disks;
    if (base != nullptr) {
      ASSIGN_OR_RETURN(const std::vector<ListedManifest> listed, repository_->ListManifests(Vm()));
      for (const ManifestDisk& disk : listed.back().manifest->disks) {
        base_disks[disk.disk_id] = disk;
      }
    }
    CommitOptions options;
    attempt_->id = options.backup_id = "b" + std::to_string(token_);
    if (base != nullptr) options.base_backup_id = base->id;
    for (const auto& [disk_id, disk] : attempt_->vm) {
      const auto before = base_disks.find(disk_id);
      const bool fits = before != base_disks.end() && before->second.size == disk.size;
      counts.over_a_base += fits ? 1 : 0;
      ASSIGN_OR_RETURN(const std::optional<Digest> root,
                       MoveOneDisk(**session, disk_id, disk, fits ? &base->vm.at(disk_id) : nullptr,
                                   fits ? before->second.root : std::nullopt));
      options.disks.push_back({disk_id, root, disk.size});
    }
    options.body.resize(random_() % 100);
    return ToStatus((*session)->Commit(options));
  }

  Result<std::optional<Digest>> MoveOneDisk(Session& session, const std::string& disk_id,
                                            const ModelDisk& disk, const ModelDisk* base,
                                            const std::optional<Digest>& base_root) {
    // Patches are laid over the newest backup in most cases, whatever is kept from the base.
    const std::optional<Digest> earlier_root = OneIn(random_, 4) ? std::nullopt : base_root;
    ByteRanges data = DifferencesOf(disk, ModelDisk{disk.size, {}});
    data.Widen(random_, disk.size);
    ByteRanges marks;
    if (base != nullptr) marks = DifferencesOf(disk, *base);
    marks.Widen(random_, disk.size);
    const unsigned kind = base == nullptr ? 0 : random_() % 3;
    ChangedBlockMap changed = ChangedBlockMap::All();
    if (kind == 1) changed = ChangedBlockMap::FromSource();
    if (kind == 2) {
      ASSIGN_OR_RETURN(changed, ChangedBlockMap::FromExtents(marks.Pairs(), disk.size));
    }
    ModelSource source(&disk, data, kind == 1 ? marks : ByteRanges(), random_());
    Progress progress;
    ASSIGN_OR_RETURN(
        const std::unique_ptr<ChunkStore> target,
        ChunkStore::Open(&session, disk_id, disk.size, {base_root, earlier_root}, &progress));
    counts.resumed += target->resumed_at_block() > 0 ? 1 : 0;
    BlockPlan plan(&source, &changed);
    RETURN_IF_ERROR(plan.Count());
    plan.StartAt(target->resumed_at_block());
    const Compression compression = OneIn(random_, 4)   ? Compression{Codec::kStored}
                                    : OneIn(random_, 3) ? Compression{Codec::kZstd, 1}
                                                        : Compression{Codec::kLz4};
    MemoryChannel channel(target.get());
    const Cancel cancel;
    std::optional<WriterKey> writer_key;
    if (secret_) writer_key.emplace(*session.repository().record_key());
    const Line line{&source, &plan,     &session.repository().naming(),     compression, &channel,
                    &cancel, &progress, writer_key ? &*writer_key : nullptr};
    return OneIn(random_, 3) ? MoveDisk(line) : MoveDiskInParallel(line, {3});
  }

  // Takes the attempt over into the model when it is in the repository.
  void CheckList(const Status& answer) {
    Result<std::vector<ListedManifest>> listed = repository_->ListManifests(Vm());
    ASSERT_TRUE(listed.ok()) << listed.status().message();
    if (listed->size() == backups_.size() + 1) {
      ASSERT_TRUE(listed->back().manifest.has_value()) << listed->back().damage.message();
      ASSERT_EQ(listed->back().manifest->point_id, attempt_->point_id);
      attempt_->id = listed->back().manifest->backup_id;
      backups_.push_back(*attempt_);
      attempt_.reset();
      ++counts.backups;
    } else {
      ASSERT_FALSE(answer.ok()) << "an answered backup is lost";
    }
    ASSERT_EQ(listed->size(), backups_.size());
    for (size_t i = 0; i < backups_.size(); ++i) {
      ASSERT_TRUE((*listed)[i].manifest.has_value());
      EXPECT_EQ((*listed)[i].manifest->backup_id, backups_[i].id);
      EXPECT_EQ((*listed)[i].manifest->sequence, i + 1);
    }
    if (!answer.ok() && !fault_planned_) ADD_FAILURE() << answer.message();
  }

  void CheckBackup(const ModelBackup& backup) {
    Result<std::vector<ListedManifest>> listed = repository_->ListManifests(Vm());
    for (const ListedManifest& one : *listed) {
      if (one.manifest->backup_id != backup.id) continue;
      ASSERT_EQ(one.manifest->disks.size(), backup.vm.size());
      for (const ManifestDisk& disk : one.manifest->disks) CheckDisk(disk, backup);
    }
  }

  void CheckDisk(const ManifestDisk& disk, const ModelBackup& backup) {
    const Cancel cancel;
    Progress progress;
    ModelTarget target(disk.size);
    Status restored =
        RestoreDisk(repository_.get(), {disk.root, disk.size}, &target, &cancel, &progress);
    ASSERT_TRUE(restored.ok()) << restored.message();
    const ModelDisk& expected = backup.vm.at(disk.disk_id);
    EXPECT_EQ(disk.size, expected.size);
    EXPECT_TRUE(target.disk == expected) << backup.id << " " << disk.disk_id;
    // The map of a disk does not depend on how it came about.
    EXPECT_EQ(disk.root.has_value(), !expected.blocks.empty());
    EXPECT_EQ(progress.position_bytes.value(), disk.size);
  }

  Random random_;
  RepositoryLimits limits_;
  std::optional<Secret> secret_;  // Of an encrypted world.
  CrashFiles files_;
  std::unique_ptr<Repository> repository_;
  ModelVm vm_;
  std::vector<ModelBackup> backups_;
  std::optional<ModelBackup> attempt_;  // The point that has no backup yet.
  uint64_t number_ = 0;
  uint64_t token_ = 0;
  bool crash_planned_ = false;
  bool fault_planned_ = false;
  bool fencing_done_ = false;
};

TEST(LineModel, RestoresEveryBackupAsItWasWhateverHappened) {
  const uint64_t seed = NumberFrom("SEED", std::random_device()());
  const int worlds = static_cast<int>(NumberFrom("WORLDS", kWorlds));
  std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  World::Counts sum;
  for (int i = 0; i < worlds && !testing::Test::HasFailure(); ++i) {
    World world(seed + static_cast<uint64_t>(i));
    for (int step = 0; step < kStepsOfAWorld && !testing::Test::HasFailure(); ++step) {
      SCOPED_TRACE("SEED=" + std::to_string(seed) + " world " + std::to_string(i) + " step " +
                   std::to_string(step));
      world.Step();
    }
    world.CountPatches();
    sum.patches += world.counts.patches;
    sum.backups += world.counts.backups;
    sum.resumed += world.counts.resumed;
    sum.crashes += world.counts.crashes;
    sum.failures += world.counts.failures;
    sum.over_a_base += world.counts.over_a_base;
    sum.fenced += world.counts.fenced;
  }
  std::printf(
      "backups: %d, disks over a base: %d, patches: %zu, resumed: %d, crashes: %d, failures: %d, "
      "fenced: %d\n",
      sum.backups, sum.over_a_base, sum.patches, sum.resumed, sum.crashes, sum.failures,
      sum.fenced);
  // A fifth of what comes on average: a model in which nothing happens proves nothing.
  EXPECT_GT(sum.backups, 5 * worlds);
  EXPECT_GT(sum.over_a_base, 7 * worlds);
  EXPECT_GT(sum.patches, static_cast<unsigned>(worlds));
  EXPECT_GT(sum.resumed * 3, worlds);
  EXPECT_GT(sum.crashes, worlds);
  EXPECT_GT(sum.failures * 2, worlds);
  EXPECT_GT(sum.fenced * 2, worlds);
}

}  // namespace
}  // namespace blockferry
