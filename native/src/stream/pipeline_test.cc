#include "stream/pipeline.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

#include "core/crash_files.h"
#include "core/endian.h"
#include "repository/pack_format.h"
#include "repository/repository.h"
#include "source/fake_source.h"
#include "stream/memory_channel.h"
#include "target/chunk_store.h"

namespace blockferry {
namespace {

// A disk with everything that takes a path of its own: holes, zeroes, blocks that shrink and that
// do not, blocks that come again soon and later.
struct MixedDisk {
  std::vector<Extent> extents;
  ByteVector content;
};

MixedDisk MakeMixedDisk(std::mt19937_64& random) {
  MixedDisk disk;
  const uint64_t block_count = 200 + random() % 300;
  ByteVector block(kBlockSize);
  while (disk.content.size() < block_count * kBlockSize) {
    const unsigned kind = random() % 6;
    if (kind >= 4 && disk.content.size() > 8 * kBlockSize) {
      const uint64_t again = random() % (disk.content.size() / kBlockSize - 1);
      std::copy_n(disk.content.begin() + again * kBlockSize, kBlockSize, block.begin());
    } else {
      uint64_t word = random();
      for (size_t at = 0; at < kBlockSize; at += 8) {
        if (kind == 1) word = word * 6364136223846793005u + 1442695040888963407u;
        StoreLe(block.data() + at, kind == 0   ? 0
                                   : kind == 1 ? word ^ (word >> 29)
                                               : word + at / 64);
      }
    }
    const bool allocated = kind != 0 || random() % 2 == 0;
    disk.extents.push_back({disk.content.size(), kBlockSize, allocated, random() % 3 != 0});
    disk.content.insert(disk.content.end(), block.begin(), block.end());
  }
  disk.content.resize(disk.content.size() - random() % kBlockSize);
  disk.extents.back().size_bytes = disk.content.size() - disk.extents.back().offset_bytes;
  return disk;
}

struct Moved {
  std::optional<Digest> root;
  // The records and the table of each pack: all but the header and the footer, which have the
  // pack's random id.
  std::multiset<std::string> packs;
  Progress progress;
};

// Some of the blocks change, most of them in a few places.
MixedDisk ChangeDisk(MixedDisk disk, std::mt19937_64& random) {
  for (size_t at = 0; at < disk.content.size(); at += kBlockSize) {
    if (random() % 3 != 0) continue;
    const size_t size = std::min<size_t>(kBlockSize, disk.content.size() - at);
    const unsigned change_count = 1 + random() % (random() % 4 == 0 ? 100 : 3);
    for (unsigned i = 0; i < change_count; ++i) {
      disk.content[at + random() % size] ^= std::byte{1};
    }
  }
  for (Extent& extent : disk.extents) extent.allocated = true;
  return disk;
}

class PipelineTest : public ::testing::Test {
 protected:
  PipelineTest() { EXPECT_TRUE(Repository::Create(empty_, "/r").ok()); }

  void Move(const MixedDisk& disk, bool parallel, Moved* moved) {
    const std::unique_ptr<CrashFiles> files = empty_.Copy();
    BackUp(*files, 1, disk, std::nullopt, parallel, moved);
    CollectPacks(*files, moved);
  }

  // A backup of `earlier`, then one of `disk`, with patches.
  void MoveTwice(const MixedDisk& earlier, const MixedDisk& disk, bool parallel, Moved* moved) {
    const std::unique_ptr<CrashFiles> files = empty_.Copy();
    Moved first;
    BackUp(*files, 1, earlier, std::nullopt, false, &first);
    BackUp(*files, 2, disk, first.root, parallel, moved);
    CollectPacks(*files, moved);
  }

  static void BackUp(CrashFiles& files, uint64_t number, const MixedDisk& disk,
                     const std::optional<Digest>& earlier_root, bool parallel, Moved* moved) {
    RepositoryLimits limits;
    limits.pack_size = 1 << 20;
    Result<std::unique_ptr<Repository>> repository = Repository::Open(files, "/r", false, limits);
    ASSERT_TRUE(repository.ok()) << repository.status().message();
    const std::string id = std::to_string(number);
    Result<std::unique_ptr<Session>> session =
        (*repository)->OpenSession({std::string(32, 'a'), "point" + id, {1, number}});
    ASSERT_TRUE(session.ok()) << session.status().message();

    FakeSource source(disk.extents, disk.content);
    const ChangedBlockMap changed = ChangedBlockMap::All();
    BlockPlan plan(&source, &changed);
    Result<std::unique_ptr<ChunkStore>> target =
        ChunkStore::Open(session->get(), "disk", disk.content.size(), {std::nullopt, earlier_root},
                         &moved->progress);
    ASSERT_TRUE(target.ok());
    MemoryChannel channel(target->get());
    const Cancel cancel;
    const Line line{&source,  &plan,   &(*repository)->naming(), Compression{},
                    &channel, &cancel, &moved->progress};
    const Result<std::optional<Digest>> root =
        parallel ? MoveDiskInParallel(line, {3}) : MoveDisk(line);
    ASSERT_TRUE(root.ok()) << root.status().message();
    moved->root = *root;
    ASSERT_TRUE((*session)->Commit({id, "", {{"disk", *root, disk.content.size()}}, {}}).ok());
    ExpectContent(repository->get(), disk, *root);
  }

  static void ExpectContent(Repository* repository, const MixedDisk& disk,
                            const std::optional<Digest>& root) {
    MapReader map(repository, root, BlockCountOf(disk.content.size()));
    ByteVector plain(kBlockSize);
    for (uint64_t index = 0; index < map.block_count(); ++index) {
      const Bytes expected =
          Bytes(disk.content).subspan(index * kBlockSize, BlockSizeAt(disk.content.size(), index));
      const std::optional<Digest> name = *map.Find(index);
      ASSERT_EQ(name.has_value(), disk.extents[index].allocated && !IsZero(expected)) << index;
      if (!name) continue;
      const MutableBytes read = MutableBytes(plain).first(expected.size());
      ASSERT_TRUE(repository->ReadChunk(*name, read, Proof::kPlain, nullptr).ok()) << index;
      ASSERT_TRUE(Equal(read, expected)) << index;
    }
  }

  static void CollectPacks(CrashFiles& files, Moved* moved) {
    for (const std::string& path : files.AllFiles()) {
      if (!path.ends_with(".pack")) continue;
      const Bytes content = *files.Content(path);
      const size_t size = content.size() - pack_format::kHeaderSize - pack_format::kFooterSize;
      moved->packs.emplace(TextOf(content.subspan(pack_format::kHeaderSize, size)));
    }
  }

  CrashFiles empty_;
};

TEST_F(PipelineTest, WritesTheSamePacksAsThePlainLoop) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 8; ++round) {
    const MixedDisk disk = MakeMixedDisk(random);
    Moved plain, parallel;
    Move(disk, false, &plain);
    Move(disk, true, &parallel);
    EXPECT_EQ(plain.root, parallel.root);
    EXPECT_GT(plain.packs.size(), 2u);
    EXPECT_TRUE(plain.packs == parallel.packs);
    EXPECT_EQ(plain.progress.read_bytes.value(), parallel.progress.read_bytes.value());
    EXPECT_EQ(plain.progress.stored_bytes.value(), parallel.progress.stored_bytes.value());
    EXPECT_EQ(plain.progress.position_bytes.value(), parallel.progress.position_bytes.value());
  }
}

TEST_F(PipelineTest, WritesTheSamePatchesAsThePlainLoop) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 4; ++round) {
    const MixedDisk earlier = MakeMixedDisk(random);
    const MixedDisk disk = ChangeDisk(earlier, random);
    Moved plain, parallel;
    MoveTwice(earlier, disk, false, &plain);
    MoveTwice(earlier, disk, true, &parallel);
    EXPECT_EQ(plain.root, parallel.root);
    EXPECT_TRUE(plain.packs == parallel.packs);
    EXPECT_EQ(plain.progress.stored_bytes.value(), parallel.progress.stored_bytes.value());
    // A third of the blocks changed, but not a third of the pages.
    EXPECT_LT(plain.progress.stored_bytes.value(), disk.content.size() / 5);
  }
}

}  // namespace
}  // namespace blockferry
