#include "repository/patch.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "core/crash_files.h"
#include "repository/pack_format.h"
#include "repository/pack_reader.h"
#include "repository/repository.h"
#include "repository/test_disk.h"

namespace blockferry {
namespace {

TEST(PatchHeadTest, SurvivesItsBytesAndRefusesPagesThatCannotBe) {
  std::array<std::byte, kPatchHeadSize> bytes;
  PatchHead head{Digest{std::byte{7}}, {}};
  head.pages.set(0).set(9).set(kPageCountMax - 1);
  EncodePatchHead(head, bytes);
  PatchHead read;
  ASSERT_TRUE(DecodePatchHead(bytes, kBlockSize, &read));
  EXPECT_EQ(read.base, head.base);
  EXPECT_EQ(read.pages, head.pages);
  // A block that ends within the last page has it, one that ends before it has not.
  EXPECT_TRUE(DecodePatchHead(bytes, kBlockSize - kPageSize + 1, &read));
  EXPECT_FALSE(DecodePatchHead(bytes, kBlockSize - kPageSize, &read));
  EXPECT_FALSE(DecodePatchHead(Bytes(bytes).first(kPatchHeadSize - 1), kBlockSize, &read));
  head.pages.reset();
  EncodePatchHead(head, bytes);
  EXPECT_FALSE(DecodePatchHead(bytes, kBlockSize, &read));
}

TEST(PatchHeadTest, LaysPagesWhereTheyWereGathered) {
  std::mt19937 random(5);
  for (const size_t size :
       {size_t{kBlockSize}, size_t{kBlockSize} - 3000, 5 * kPageSize, size_t{1}}) {
    const ByteVector block = TestBlock(1, size);
    PageSet pages;
    for (size_t page = 0; page * kPageSize < size; ++page) pages[page] = random() % 2 == 0;
    ByteVector gathered(SizeOfPages(pages, size));
    GatherPages(pages, block, gathered);
    ByteVector other = TestBlock(2, size);
    const ByteVector before = other;
    LayPagesOver(pages, gathered, other);
    for (size_t at = 0; at < size; ++at) {
      ASSERT_EQ(other[at], pages[at / kPageSize] ? block[at] : before[at]) << at;
    }
  }
}

// A repository with one disk: block 0 is whole, block 1 a patch over it.
class PatchTest : public ::testing::Test {
 protected:
  PatchTest() {
    EXPECT_TRUE(Repository::Create(files_, "/r").ok());
    Reopen();
    changed_[3 * kPageSize] ^= std::byte{1};
    changed_[kBlockSize - 1] ^= std::byte{1};
    whole_name_ = repository_->naming().ChunkName(whole_);
    changed_name_ = repository_->naming().ChunkName(changed_);
  }

  void Reopen() {
    repository_.reset();
    repository_ = *Repository::Open(files_, "/r", false);
  }

  std::unique_ptr<Session> OpenSession() {
    return *repository_->OpenSession(
        {std::string(32, 'a'), "point-" + std::to_string(++number_), {1, number_}});
  }

  NewRecord WholeRecord() {
    return {RecordType::kChunk, Codec::kStored, whole_name_, kBlockSize, whole_};
  }

  // The pages in which changed_ differs from `base`, laid over that.
  NewRecord PatchRecord(const Digest& base) {
    PatchHead head{base, {}};
    head.pages.set(3).set(kPageCountMax - 1);
    patch_.resize(kPatchHeadSize + 2 * kPageSize);
    EncodePatchHead(head, MutableBytes(patch_).first(kPatchHeadSize));
    GatherPages(head.pages, changed_, MutableBytes(patch_).subspan(kPatchHeadSize));
    NewRecord record{RecordType::kPatch, Codec::kStored, changed_name_, kBlockSize, patch_};
    record.base = base;
    return record;
  }

  void Store(std::vector<NewRecord> records) {
    std::unique_ptr<Session> session = OpenSession();
    std::unique_ptr<DiskWriter> disk =
        *session->OpenDisk("d", records.size() * kBlockSize, std::nullopt);
    for (size_t i = 0; i < records.size(); ++i) ASSERT_TRUE(*disk->Put(i, records[i]));
    const std::optional<Digest> root = *disk->Finish();
    const std::string id = "b" + std::to_string(number_);
    ASSERT_TRUE(session->Commit({id, "", {{"d", root, records.size() * kBlockSize}}, {}}).ok());
  }

  // Changes a byte of what is stored of `bytes`, wherever that is.
  void DamageStored(Bytes bytes) {
    for (const std::string& path : files_.AllFiles()) {
      if (!path.ends_with(".pack")) continue;
      ByteVector* content = files_.Content(path);
      const auto found = std::search(content->begin(), content->end(), bytes.begin(), bytes.end());
      if (found != content->end()) *found ^= std::byte{1};
    }
  }

  CrashFiles files_;
  std::unique_ptr<Repository> repository_;
  uint64_t number_ = 0;
  const ByteVector whole_ = TestBlock(1, kBlockSize);
  ByteVector changed_ = whole_;
  ByteVector patch_;
  Digest whole_name_;
  Digest changed_name_;
};

TEST_F(PatchTest, ReadsBackAsTheBlockThatItStandsFor) {
  Store({WholeRecord(), PatchRecord(whole_name_)});
  for (const bool reopens : {false, true}) {
    if (reopens) Reopen();
    ByteVector plain(kBlockSize);
    uint64_t stored_size = 0;
    ASSERT_TRUE(repository_->ReadChunk(changed_name_, plain, Proof::kPlain, &stored_size).ok());
    EXPECT_EQ(plain, changed_);
    EXPECT_EQ(stored_size, kBlockSize + patch_.size());
    EXPECT_EQ(repository_->info().chunk_count, 2u);
    // What a patch of either may be laid over is the whole one.
    for (const Digest& name : {whole_name_, changed_name_}) {
      const std::optional<BaseChunk> base = repository_->ReadBase(name, plain);
      ASSERT_TRUE(base.has_value());
      EXPECT_EQ(base->name, whole_name_);
      EXPECT_EQ(base->stored_size, kBlockSize);
      EXPECT_EQ(plain, whole_);
    }
    EXPECT_FALSE(repository_->ReadBase(Digest{}, plain).has_value());
    EXPECT_FALSE(repository_->ReadBase(changed_name_, MutableBytes(plain).first(100)).has_value());
  }
}

TEST_F(PatchTest, NamesItsBaseInTheTableOfItsPack) {
  Store({WholeRecord(), PatchRecord(whole_name_)});
  for (const std::string& path : files_.AllFiles()) {
    if (!path.ends_with(".pack")) continue;
    PackId id;
    ASSERT_TRUE(ParseHex(std::string_view(path).substr(path.size() - 37, 32), id));
    Result<PackTable> table = ReadPackTable(files_, path, repository_->info().repository_id, id);
    ASSERT_TRUE(table.ok()) << table.status().message();
    EXPECT_EQ(table->bases, std::vector<Digest>({whole_name_}));
    // Every byte of the table counts, those of the bases, too.
    const Bytes content = *files_.Content(path);
    const size_t base_at = content.size() - pack_format::kFooterSize - 1;
    (*files_.Content(path))[base_at] ^= std::byte{1};
    EXPECT_TRUE(ReadPackTable(files_, path, repository_->info().repository_id, id)
                    .status()
                    .Is(reason::kRepositoryDamaged));
  }
}

TEST_F(PatchTest, IsOnlyTakenOverAWholeChunkThatIsPresent) {
  {
    std::unique_ptr<Session> session = OpenSession();
    std::unique_ptr<DiskWriter> disk = *session->OpenDisk("d", 3 * kBlockSize, std::nullopt);
    EXPECT_FALSE(*disk->Put(0, PatchRecord(whole_name_)));
    EXPECT_TRUE(*disk->Put(0, WholeRecord()));
    // In the open pack.
    EXPECT_TRUE(*disk->Put(1, PatchRecord(whole_name_)));
    NewRecord over_a_patch = PatchRecord(changed_name_);
    over_a_patch.name = Digest{std::byte{9}};
    EXPECT_FALSE(*disk->Put(2, over_a_patch));
  }
  Store({WholeRecord()});
  Store({PatchRecord(whole_name_)});
  std::unique_ptr<Session> session = OpenSession();
  std::unique_ptr<DiskWriter> disk = *session->OpenDisk("d", kBlockSize, std::nullopt);
  NewRecord over_a_patch = PatchRecord(changed_name_);
  over_a_patch.name = Digest{std::byte{9}};
  EXPECT_FALSE(*disk->Put(0, over_a_patch));
  // By name a patch is the block.
  EXPECT_TRUE(*disk->PutKnown(0, changed_name_));
}

TEST_F(PatchTest, CountsItsBaseAmongWhatACommitRefersTo) {
  Store({WholeRecord()});
  std::unique_ptr<Session> session = OpenSession();
  std::unique_ptr<DiskWriter> disk = *session->OpenDisk("d", kBlockSize, std::nullopt);
  ASSERT_TRUE(*disk->Put(0, PatchRecord(whole_name_)));
  const std::optional<Digest> root = *disk->Finish();
  for (const std::string& path : files_.AllFiles()) {
    if (!path.starts_with("/r/packs/")) continue;
    EXPECT_TRUE(files_.Remove(path).ok());
  }
  EXPECT_TRUE(session->Commit({"b2", "", {{"d", root, kBlockSize}}, {}})
                  .status()
                  .Is(reason::kChunkMissing));
}

TEST_F(PatchTest, IsStoredAnewWhenItsBaseOrItselfIsDamaged) {
  for (const bool damages_base : {true, false}) {
    Store({WholeRecord(), PatchRecord(whole_name_)});
    DamageStored(damages_base ? Bytes(whole_).first(64) : Bytes(changed_).last(64));
    Reopen();
    ByteVector plain(kBlockSize);
    const Status damage = repository_->ReadChunk(changed_name_, plain, Proof::kPlain, nullptr);
    EXPECT_TRUE(damage.Is(reason::kBlockCorrupt)) << damage.message();
    EXPECT_FALSE(repository_->Has(changed_name_));
    EXPECT_EQ(repository_->Has(whole_name_), !damages_base);
    Store({WholeRecord(), PatchRecord(whole_name_)});
    ASSERT_TRUE(repository_->ReadChunk(changed_name_, plain, Proof::kPlain, nullptr).ok());
    EXPECT_EQ(plain, changed_);
  }
}

}  // namespace
}  // namespace blockferry
