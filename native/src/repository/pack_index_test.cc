// The index against a plain model: packs come and go, several programs share the folder, files are
// damaged, swapped and removed, calls fail, the machine crashes.
#include "repository/pack_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "core/crash_files.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
constexpr char kScratch[] = "/scratch";
const RepositoryId kRepository = {std::byte{7}};
// A table of 24 entries, and three directory pages.
constexpr size_t kSmallMemory = 8 * 32 * 28;

using Table = std::vector<PackEntry>;
using Model = std::map<PackId, Table>;

class PackIndexTest : public testing::TestWithParam<bool> {
 protected:
  PackIndexTest() {
    std::printf("SEED=%u\n", seed_);
    EXPECT_TRUE(files_->CreateFolder(kFolder).ok());
    EXPECT_TRUE(files_->CreateFolder(kScratch).ok());
  }

  std::unique_ptr<PackIndex> Open(size_t memory = kSmallMemory, bool read_only = false,
                                  const std::string& scratch = kScratch) {
    return std::make_unique<PackIndex>(*files_, kFolder, kRepository,
                                       IndexOptions{memory, GetParam(), read_only, scratch});
  }

  Table RandomTable(size_t count) {
    Table table(count);
    for (PackEntry& entry : table) {
      for (size_t at = 0; at < entry.name.size(); at += 8) StoreLe(&entry.name[at], random_());
      if (!names_.empty() && random_() % 5 == 0) entry.name = names_[random_() % names_.size()];
      names_.push_back(entry.name);
      entry.type = random_() % 6 == 0 ? RecordType::kMapNode : RecordType::kChunk;
      entry.offset = static_cast<uint32_t>(128 + random_() % 1000000);
      entry.stored_size = static_cast<uint32_t>(1 + random_() % 60000);
    }
    return table;
  }
  PackId AddToModel(size_t entry_count) {
    PackId id;
    StoreLe(id.data(), random_());
    StoreLe(id.data() + 8, random_());
    // A few folders only, so that several packs lie in one.
    id[0] &= std::byte{3};
    model_[id] = RandomTable(entry_count);
    return id;
  }

  // As Repository::Refresh does it; returns how many tables were read.
  Result<size_t> Refresh(PackIndex& index) {
    size_t read_count = 0;
    index.ReadFiles();
    for (int folder = 0; folder < 256; ++folder) {
      std::vector<ListedPack> listed;
      PackId first{std::byte(folder)};
      for (auto at = model_.lower_bound(first); at != model_.end(); ++at) {
        if (at->first[0] != first[0]) break;
        listed.push_back({at->first});
      }
      std::vector<ListedPack> unread;
      std::vector<PackId> gone;
      index.SetListed(std::byte(folder), listed, &unread, &gone);
      for (const ListedPack& one : unread) {
        RETURN_IF_ERROR(index.AddPack(one, 1000, model_[one.id]));
        ++read_count;
      }
    }
    index.Settle();
    return read_count;
  }

  using Places = std::map<std::pair<PackId, uint32_t>, uint32_t>;
  using PlacesOfNames = std::map<std::pair<Digest, RecordType>, Places>;
  PlacesOfNames Expected() const {
    PlacesOfNames expected;
    for (const auto& [id, table] : model_) {
      for (const PackEntry& entry : table) {
        expected[{entry.name, entry.type}][{id, entry.offset}] = entry.stored_size;
      }
    }
    return expected;
  }
  static Places Found(const PackIndex& index, RecordType type, const Digest& name) {
    Places places;
    for (const RecordPlace& place : index.FindAll(type, name)) {
      places[{index.IdOf(place.pack), place.offset}] = place.stored_size;
    }
    return places;
  }

  // Everything that the index says is true; all of it is there once nothing is lost any more.
  void Check(PackIndex& index, size_t stride = 1) {
    uint64_t chunk_count = 0;
    for (const auto& [id, table] : model_) {
      ASSERT_TRUE(index.PackNumber(id).has_value());
      for (const PackEntry& entry : table) chunk_count += entry.type == RecordType::kChunk ? 1 : 0;
    }
    EXPECT_EQ(index.pack_count(), model_.size());
    EXPECT_EQ(index.stored(), 1000 * model_.size());
    EXPECT_EQ(index.chunk_count(), chunk_count);
    PlacesOfNames all = Expected();
    for (size_t i = 0; i < names_.size(); i += 1 + random_() % stride) {
      for (const RecordType type : {RecordType::kChunk, RecordType::kMapNode}) {
        const Places& expected = all[{names_[i], type}];
        for (;;) {
          const uint64_t mark = index.whole_mark();
          const Places found = Found(index, type, names_[i]);
          const bool is_there = index.Find(type, names_[i]).has_value();
          if (index.IsWholeSince(mark)) {
            ASSERT_EQ(found, expected);
            ASSERT_EQ(is_there, !expected.empty());
            break;
          }
          ASSERT_TRUE(std::includes(expected.begin(), expected.end(), found.begin(), found.end()));
          Result<size_t> refreshed = Refresh(index);
          ASSERT_TRUE(refreshed.ok()) << refreshed.status().message();
        }
      }
    }
  }

  std::vector<std::string> IndexFileNames(const std::string& suffix = ".index") {
    std::vector<std::string> paths = files_->AllFiles();
    std::erase_if(paths, [&](const std::string& path) { return !path.ends_with(suffix); });
    return paths;
  }
  void DamageAFile() {
    const std::vector<std::string> paths = IndexFileNames();
    if (paths.empty()) return;
    const std::string& path = paths[random_() % paths.size()];
    ByteVector& content = *files_->Content(path);
    if (content.empty()) return;
    const unsigned kind = random_() % 6;
    if (kind == 0) content.resize(random_() % content.size());
    if (kind == 1) content[random_() % content.size()] ^= std::byte(1 << random_() % 8);
    if (kind == 2 && content.size() > 8192) content[4096 + random_() % 4096] ^= std::byte{1};
    if (kind == 3) content = *files_->Content(paths[random_() % paths.size()]);
    if (kind == 4) static_cast<void>(files_->Remove(path).ok());
    if (kind == 5) content.insert(content.end(), 5, std::byte{0});
  }

  uint32_t seed_ = std::getenv("SEED") == nullptr
                       ? std::random_device()()
                       : static_cast<uint32_t>(std::strtoul(std::getenv("SEED"), nullptr, 10));
  std::mt19937_64 random_{seed_};
  std::unique_ptr<CrashFiles> files_ = std::make_unique<CrashFiles>();
  Model model_;
  std::vector<Digest> names_;
};

INSTANTIATE_TEST_SUITE_P(Writing, PackIndexTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "InBackground" : "AtOnce");
});

TEST_P(PackIndexTest, IsRightWhateverHappensToItsFiles) {
  int merges = 0;
  int crashes = 0;
  int damages = 0;
  for (int world = 0; world < 10 && !HasFailure(); ++world) {
    files_ = std::make_unique<CrashFiles>();
    model_.clear();
    names_.clear();
    ASSERT_TRUE(files_->CreateFolder(kFolder).ok());
    ASSERT_TRUE(files_->CreateFolder(kScratch).ok());
    // Programs that have the repository open.
    std::vector<std::unique_ptr<PackIndex>> programs(3);
    for (int step = 0; step < 60 && !HasFailure(); ++step) {
      SCOPED_TRACE("world " + std::to_string(world) + " step " + std::to_string(step));
      std::unique_ptr<PackIndex>& index = programs[random_() % programs.size()];
      if (index == nullptr) index = Open(kSmallMemory, random_() % 6 == 0);
      const unsigned kind = random_() % 10;
      if (kind == 0 && !model_.empty()) {
        auto gone = model_.begin();
        std::advance(gone, random_() % model_.size());
        model_.erase(gone);
      } else if (kind == 1) {
        DamageAFile();
        ++damages;
      } else if (kind == 2) {
        index.reset();
        continue;
      } else if (kind == 3) {
        files_->FailAt(1 + random_() % 12, Status(reason::kRepositoryFull, "planned"));
      } else if (kind == 4) {
        files_->CrashAt(1 + random_() % 12);
      }
      for (unsigned i = random_() % 4; i > 0; --i) {
        const PackId id = AddToModel(1 + random_() % 20);
        // Sealed by this program, or found by its next refresh.
        if (random_() % 2 == 0) {
          static_cast<void>(index->AddPack({id}, 1000, model_[id]).ok());
        }
      }
      const size_t files_before = index->file_count();
      Result<size_t> refreshed = Refresh(*index);
      index->AwaitWork();
      merges += index->file_count() < files_before ? 1 : 0;
      if (kind == 4) {
        programs.clear();
        programs.resize(3);
        crashes += files_->planned_fault_came() ? 1 : 0;
        const auto survivor = static_cast<CrashFiles::Survivor>(random_() % 3);
        files_->Restart(survivor, static_cast<uint32_t>(random_()));
        // A test's folders are made in no order that survives.
        for (const char* folder : {kFolder, kScratch}) {
          static_cast<void>(files_->CreateFolder(folder).ok());
        }
        continue;
      }
      if (kind == 3) {
        files_->FailAt(0, {});
        refreshed = Refresh(*index);
      }
      ASSERT_TRUE(refreshed.ok()) << refreshed.status().message();
      Check(*index, 60);
    }
    // Who opens the repository next removes what was not finished.
    programs.clear();
    std::unique_ptr<PackIndex> last = Open();
    ASSERT_TRUE(Refresh(*last).ok());
    Check(*last);
    last->AwaitWork();
    for (const std::string& path : IndexFileNames("-new")) {
      EXPECT_TRUE(path.starts_with(kScratch)) << path;
    }
  }
  std::printf("merges: %d, crashes: %d, damages: %d\n", merges, crashes, damages);
  EXPECT_GT(merges, 20);
  EXPECT_GT(crashes, 10);
  EXPECT_GT(damages, 20);
}

TEST_P(PackIndexTest, ReadsNoTableThatAFileCovers) {
  for (int i = 0; i < 64; ++i) AddToModel(30);
  {
    std::unique_ptr<PackIndex> first = Open();
    EXPECT_EQ(*Refresh(*first), 64u);
    first->AwaitWork();
    // Merged: at most three of each size class.
    EXPECT_LE(first->file_count(), 9u);
  }
  std::unique_ptr<PackIndex> second = Open();
  // But that of the pack that the last table had.
  EXPECT_LE(*Refresh(*second), 1u);
  Check(*second);
}

TEST_P(PackIndexTest, WritesNoFileForFewPacks) {
  for (int i = 0; i < 63; ++i) AddToModel(30);
  std::unique_ptr<PackIndex> index = Open(1 << 20);
  EXPECT_EQ(*Refresh(*index), 63u);
  index->AwaitWork();
  EXPECT_TRUE(IndexFileNames().empty());
  AddToModel(30);
  EXPECT_EQ(*Refresh(*index), 1u);
  index->AwaitWork();
  EXPECT_EQ(IndexFileNames().size(), 1u);
  Check(*index);
  index = Open(1 << 20);
  EXPECT_EQ(*Refresh(*index), 0u);
  Check(*index);
}

TEST_P(PackIndexTest, OfAReadOnlyRepositoryWritesToScratchOnly) {
  for (int i = 0; i < 40; ++i) AddToModel(20);
  std::unique_ptr<PackIndex> index = Open(kSmallMemory, true);
  EXPECT_EQ(*Refresh(*index), 40u);
  index->AwaitWork();
  Check(*index);
  EXPECT_GT(index->file_count(), 0u);
  EXPECT_LE(index->file_count(), 9u);
  EXPECT_TRUE(files_->AllFiles().empty());
}

TEST_P(PackIndexTest, SaysSoWhenItCanBeKeptNowhere) {
  for (int i = 0; i < 40; ++i) AddToModel(20);
  std::unique_ptr<PackIndex> index = Open(kSmallMemory, true, "/nowhere");
  Result<size_t> refreshed = Refresh(*index);
  ASSERT_FALSE(refreshed.ok());
  EXPECT_NE(refreshed.status().message().find("/nowhere"), std::string::npos)
      << refreshed.status().message();
  // What it knows is right all the same, and it goes on once there is room.
  ASSERT_TRUE(files_->CreateFolder("/nowhere").ok());
  ASSERT_TRUE(Refresh(*index).ok());
  Check(*index);
}

TEST_P(PackIndexTest, PassesOverADamagedRecordUntilItsPackComesAnew) {
  const PackId id = AddToModel(1);
  const PackEntry entry = model_[id][0];
  names_.clear();  // No other pack has it.
  std::unique_ptr<PackIndex> index = Open();
  ASSERT_TRUE(Refresh(*index).ok());
  const RecordPlace place = *index->Find(entry.type, entry.name);
  EXPECT_TRUE(index->MarkDamaged(place.pack, place.offset));
  // Also when a file has taken the record over.
  for (int i = 0; i < 20; ++i) AddToModel(20);
  ASSERT_TRUE(Refresh(*index).ok());
  index->AwaitWork();
  EXPECT_FALSE(index->Find(entry.type, entry.name));
  EXPECT_EQ(index->FindAll(entry.type, entry.name).size(), 1u);
  const Table table = model_[id];
  model_.erase(id);
  ASSERT_TRUE(Refresh(*index).ok());
  EXPECT_TRUE(index->FindAll(entry.type, entry.name).empty());
  model_[id] = table;
  ASSERT_TRUE(Refresh(*index).ok());
  EXPECT_TRUE(index->Find(entry.type, entry.name));
}

TEST_P(PackIndexTest, IsClosedAmidAMerge) {
  for (int i = 0; i < 300; ++i) AddToModel(20);
  std::unique_ptr<PackIndex> index = Open();
  EXPECT_EQ(*Refresh(*index), 300u);
  index.reset();
  index = Open();
  ASSERT_TRUE(Refresh(*index).ok());
  Check(*index);
}

}  // namespace
}  // namespace blockferry
