// Encrypted repositories: what opens them, and what lies in clear.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>

#include "core/crash_files.h"
#include "repository/collector.h"
#include "repository/key_slot_format.h"
#include "repository/pack_format.h"
#include "repository/repository.h"
#include "repository/test_disk.h"

namespace blockferry {
namespace {

constexpr char kFolder[] = "/r";
constexpr uint64_t kSize = 4 * uint64_t{kBlockSize};
constexpr char kDiskId[] = "secret-disk-name.qcow2";
constexpr char kBody[] = "what the machine's configuration says";

Secret Key(uint8_t byte) { return {Secret::Kind::kKey, ByteVector(32, std::byte{byte})}; }
Secret Passphrase(std::string_view text) {
  const Bytes bytes = BytesOf(text);
  return {Secret::Kind::kPassphrase, ByteVector(bytes.begin(), bytes.end())};
}

class EncryptionTest : public ::testing::Test {
 protected:
  EncryptionTest() {
    Result<RepositoryInfo> created = Repository::Create(files_, kFolder, &key_);
    EXPECT_TRUE(created.ok() && created->is_encrypted);
    Open();
  }

  void Open() {
    repository_.reset();
    repository_ = *Repository::Open(files_, kFolder, false, {}, &key_);
  }

  std::string OpenReason(const Secret* secret) {
    const Result<std::unique_ptr<Repository>> opened =
        Repository::Open(files_, kFolder, false, {}, secret);
    return opened.ok() ? "" : std::string(opened.status().reason());
  }

  RepositoryId Id() { return repository_->info().repository_id; }

  RepositoryKeys Keys() { return *UnlockKeys(files_, kFolder, Id(), key_); }

  Result<KeySlot> Add(const Secret& secret, const std::string& label = "") {
    return AddKeySlot(files_, kFolder, Id(), Keys(), secret, label);
  }

  // Block 0 is text that can be looked for, block 1 the same with a changed page, as a patch.
  void BackUp() {
    std::unique_ptr<Session> session =
        *repository_->OpenSession({std::string(32, 'a'), "point", {1, 1}});
    WriterKey writer(*repository_->record_key());
    Sealer sealer(&writer);
    std::unique_ptr<DiskWriter> disk = *session->OpenDisk(kDiskId, kSize, std::nullopt);
    ASSERT_TRUE(Put(disk.get(), 0, text_, &sealer));
    ASSERT_TRUE(PutPatch(disk.get(), 1, &sealer));
    const std::optional<Digest> root = *disk->Finish();
    const Bytes body = BytesOf(kBody);
    ASSERT_TRUE(
        session
            ->Commit({"backup", "", {{kDiskId, root, kSize}}, ByteVector(body.begin(), body.end())})
            .ok());
  }

  bool Put(DiskWriter* disk, uint64_t index, const ByteVector& block, Sealer* sealer) {
    NewRecord record{RecordType::kChunk, Codec::kStored, repository_->naming().ChunkName(block),
                     kBlockSize, block};
    return PutSealed(disk, index, &record, sealer);
  }

  bool PutPatch(DiskWriter* disk, uint64_t index, Sealer* sealer) {
    PatchHead head{repository_->naming().ChunkName(text_), {}};
    head.pages.set(2);
    ByteVector stored(kPatchHeadSize + kPageSize);
    EncodePatchHead(head, MutableBytes(stored).first(kPatchHeadSize));
    GatherPages(head.pages, changed_, MutableBytes(stored).subspan(kPatchHeadSize));
    NewRecord record{RecordType::kPatch, Codec::kStored, repository_->naming().ChunkName(changed_),
                     kBlockSize, stored};
    record.base = head.base;
    return PutSealed(disk, index, &record, sealer);
  }

  static bool PutSealed(DiskWriter* disk, uint64_t index, NewRecord* record, Sealer* sealer) {
    record->is_encrypted = true;
    ByteVector encoded(RecordSize(*record));
    EncodeRecord(*record, encoded, sealer);
    record->encoded = encoded;
    return *disk->Put(index, *record);
  }

  Status Read(const ByteVector& block) {
    ByteVector plain(kBlockSize);
    RETURN_IF_ERROR(repository_->ReadChunk(repository_->naming().ChunkName(block), plain,
                                           Proof::kPlain, nullptr));
    EXPECT_EQ(plain, block);
    return {};
  }

  std::string PackPath() {
    for (const std::string& path : files_.AllFiles()) {
      if (path.ends_with(".pack")) return path;
    }
    return "";
  }

  static ByteVector Text() {
    ByteVector text(kBlockSize);
    constexpr std::string_view kWords = "nobody may read these words. ";
    for (size_t at = 0; at < text.size(); ++at) {
      text[at] = static_cast<std::byte>(kWords[at % kWords.size()]);
    }
    return text;
  }
  static ByteVector Changed() {
    ByteVector changed = Text();
    constexpr std::string_view kMark = "nor these, which are only in the patch";
    for (size_t i = 0; i < kMark.size(); ++i) {
      changed[2 * kPageSize + 100 + i] = static_cast<std::byte>(kMark[i]);
    }
    return changed;
  }

  const Secret key_ = Key(1);
  CrashFiles files_;
  std::unique_ptr<Repository> repository_;
  const ByteVector text_ = Text();
  const ByteVector changed_ = Changed();
};

TEST_F(EncryptionTest, ReadsBackWhatItWrote) {
  BackUp();
  for (const bool reopens : {false, true}) {
    if (reopens) Open();
    EXPECT_TRUE(Read(text_).ok());
    EXPECT_TRUE(Read(changed_).ok());
    const ListedManifest listed = repository_->ListManifests(std::nullopt)->at(0);
    ASSERT_TRUE(listed.manifest.has_value()) << listed.damage.message();
    EXPECT_EQ(listed.manifest->disks[0].disk_id, kDiskId);
    EXPECT_EQ(TextOf(listed.manifest->body), kBody);
  }
}

TEST_F(EncryptionTest, LeavesNoWordInClear) {
  BackUp();
  // A session that ended with a checkpoint leaves its disk's name neither.
  {
    std::unique_ptr<Session> session =
        *repository_->OpenSession({std::string(32, 'b'), "point-2", {1, 2}});
    std::unique_ptr<DiskWriter> disk = *session->OpenDisk(kDiskId, 4 * kSize, std::nullopt);
    for (uint64_t index = 0; index < 3; ++index) {
      ASSERT_TRUE(*disk->PutKnown(index, repository_->naming().ChunkName(text_)));
    }
    ASSERT_TRUE(disk->Finish().ok());
  }
  size_t checkpoint_count = 0;
  for (const std::string& path : files_.AllFiles()) {
    checkpoint_count += path.ends_with(".checkpoint");
    const std::string content(TextOf(*files_.Content(path)));
    for (const std::string_view word : {"nobody may read", "nor these, which", kDiskId, kBody}) {
      EXPECT_EQ(content.find(word), std::string::npos) << word << " in " << path;
    }
    const RepositoryKeys keys = Keys();
    for (const Digest& key : {keys.naming_key, keys.record_key}) {
      EXPECT_EQ(content.find(TextOf(key)), std::string::npos) << path;
    }
  }
  EXPECT_EQ(checkpoint_count, 1u);
}

TEST_F(EncryptionTest, NeverReturnsAChangedBlock) {
  BackUp();
  std::mt19937 random(11);
  ByteVector& pack = *files_.Content(PackPath());
  const ByteVector good = pack;
  for (int round = 0; round < 300; ++round) {
    pack = good;
    // The digest that needs no key is right again: what is left is the seal.
    const size_t record_at = pack_format::kHeaderSize;
    const size_t record_size = pack_format::kRecordHeaderSize + kBlockSize + kAeadTagSize;
    const size_t bit = random() % ((record_size - 16) * 8);
    pack[record_at + 16 + bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    const Digest digest = Blake3Hash(Bytes(pack).subspan(record_at + 16, record_size - 16));
    std::copy_n(digest.begin(), 16, pack.begin() + record_at);
    Open();
    EXPECT_TRUE(Read(text_).Is(reason::kBlockCorrupt)) << bit;
    EXPECT_TRUE(Read(changed_).Is(reason::kBlockCorrupt)) << bit;
  }
}

TEST_F(EncryptionTest, OpensWithEachOfItsSecretsAndNoOther) {
  BackUp();
  EXPECT_EQ(OpenReason(nullptr), reason::kKeyMissing);
  const Secret other = Key(2), first = Passphrase("correct horse"), second = Passphrase("battery");
  EXPECT_EQ(OpenReason(&other), reason::kKeyWrong);
  EXPECT_EQ(OpenReason(&first), reason::kKeyWrong);
  const Result<KeySlot> slot = Add(first, "for people");
  ASSERT_TRUE(slot.ok()) << slot.status().message();
  EXPECT_EQ(OpenReason(&first), "");
  EXPECT_EQ(OpenReason(&second), reason::kKeyWrong);
  // A key with the bytes of a passphrase is another secret.
  const Secret as_key = {Secret::Kind::kKey, first.bytes};
  EXPECT_EQ(OpenReason(&as_key), reason::kKeyWrong);
  const std::vector<KeySlot> slots = *ListKeySlots(files_, kFolder, Id());
  ASSERT_EQ(slots.size(), 2u);
  ASSERT_TRUE(Add(other).ok());
  ASSERT_TRUE(RemoveKeySlot(files_, kFolder, Id(), slot->slot_id).ok());
  EXPECT_EQ(OpenReason(&first), reason::kKeyWrong);
  EXPECT_EQ(OpenReason(&other), "");
  EXPECT_TRUE(RemoveKeySlot(files_, kFolder, Id(), slot->slot_id).Is(reason::kNotFound));
}

TEST_F(EncryptionTest, KeepsItsLastSlot) {
  const std::vector<KeySlot> slots = *ListKeySlots(files_, kFolder, Id());
  ASSERT_EQ(slots.size(), 1u);
  EXPECT_TRUE(RemoveKeySlot(files_, kFolder, Id(), slots[0].slot_id).Is(reason::kKeySlotLast));
  EXPECT_EQ(OpenReason(&key_), "");
}

// Somebody else removes the other slot while this one is being removed.
class RacingFiles : public CrashFiles {
 public:
  Status RenameNoReplace(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(CrashFiles::RenameNoReplace(from, to));
    if (to.ends_with(key_slot_format::kRemovedKeySuffix) && !other.empty()) {
      const std::string gone = std::exchange(other, "");
      return CrashFiles::RenameNoReplace(gone, gone + "-removed");
    }
    return {};
  }
  std::string other;
};

TEST(KeySlots, AreNotAllRemovedByTwoAtOnce) {
  RacingFiles files;
  const Secret one = Key(1), two = Key(2);
  const RepositoryId id = Repository::Create(files, kFolder, &one)->repository_id;
  const std::string first = ListKeySlots(files, kFolder, id)->at(0).slot_id;
  const RepositoryKeys keys = *UnlockKeys(files, kFolder, id, one);
  const std::string second = AddKeySlot(files, kFolder, id, keys, two, "")->slot_id;
  files.other = std::string(kFolder) + "/keys/" + second + key_slot_format::kKeySuffix;
  EXPECT_TRUE(RemoveKeySlot(files, kFolder, id, first).Is(reason::kKeySlotLast));
  EXPECT_TRUE(Repository::Open(files, kFolder, false, {}, &one).ok());
}

TEST_F(EncryptionTest, RefusesSecretsThatCannotBe) {
  EXPECT_TRUE(Add({Secret::Kind::kKey, ByteVector(31)}).status().Is(reason::kArgumentInvalid));
  EXPECT_TRUE(Add(Passphrase("")).status().Is(reason::kArgumentInvalid));
  EXPECT_TRUE(Add({Secret::Kind::kPassphrase, ByteVector(1025, std::byte{'a'})})
                  .status()
                  .Is(reason::kArgumentInvalid));
  EXPECT_TRUE(Add(Key(3), "line\nbreak").status().Is(reason::kArgumentInvalid));
  EXPECT_EQ(ListKeySlots(files_, kFolder, Id())->size(), 1u);
}

TEST_F(EncryptionTest, PassesOverSlotsThatAreDamagedOrOfAnotherRepository) {
  CrashFiles other_files;
  ASSERT_TRUE(Repository::Create(other_files, kFolder, &key_).ok());
  const std::string keys = std::string(kFolder) + "/" + key_slot_format::kKeysFolder + "/";
  std::string own;
  for (const std::string& path : files_.AllFiles()) {
    if (path.starts_with(keys)) own = path;
  }
  const ByteVector good = *files_.Content(own);
  for (const std::string& path : other_files.AllFiles()) {
    if (!path.starts_with(keys)) continue;
    std::unique_ptr<File> copy = *files_.CreateExclusive(path);
    ASSERT_TRUE(copy->Append(*other_files.Content(path)).ok());
  }
  EXPECT_EQ(OpenReason(&key_), "");
  // It is no slot to fall back on, either.
  const std::vector<KeySlot> slots = *ListKeySlots(files_, kFolder, Id());
  ASSERT_EQ(slots.size(), 1u);
  EXPECT_TRUE(RemoveKeySlot(files_, kFolder, Id(), slots[0].slot_id).Is(reason::kKeySlotLast));
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    ByteVector& slot = *files_.Content(own);
    slot = good;
    if (round % 4 == 0) slot.resize(random() % slot.size());
    if (round % 4 != 0) slot[random() % slot.size()] ^= static_cast<std::byte>(1 << random() % 8);
    EXPECT_EQ(OpenReason(&key_), reason::kKeyWrong);
  }
}

TEST_F(EncryptionTest, IsCreatedAgainAfterACreationThatWasCutOff) {
  for (uint64_t call = 1;; ++call) {
    CrashFiles files;
    files.CrashAt(call);
    const bool answered = Repository::Create(files, kFolder, &key_).ok();
    if (answered && !files.planned_fault_came()) break;
    files.Restart(CrashFiles::Survivor::kProcess, 1);
    if (!answered) {
      const Secret second = Key(2);
      const Result<RepositoryInfo> again = Repository::Create(files, kFolder, &second);
      // The cut may have come after the last rename: then there is one already.
      if (!again.ok()) {
        EXPECT_TRUE(again.status().Is(reason::kRepositoryExists)) << again.status().message();
      }
      const Result<std::unique_ptr<Repository>> opened =
          Repository::Open(files, kFolder, false, {}, again.ok() ? &second : &key_);
      EXPECT_TRUE(opened.ok()) << call << " " << opened.status().message();
    }
  }
}

TEST_F(EncryptionTest, IsCollectedWithoutAKey) {
  BackUp();
  {
    const std::unique_ptr<Session> session =
        *repository_->OpenSession({std::string(32, 'b'), "gone", {1, 2}});
    WriterKey writer(*repository_->record_key());
    Sealer sealer(&writer);
    const std::unique_ptr<DiskWriter> disk = *session->OpenDisk("d", kSize, std::nullopt);
    ASSERT_TRUE(Put(disk.get(), 2, ByteVector(kBlockSize, std::byte{9}), &sealer));
    const std::optional<Digest> root = *disk->Finish();
    ASSERT_TRUE(session->Commit({"gone", "", {{"d", root, kSize}}, {}}).ok());
  }
  ASSERT_TRUE(repository_->RemoveBackup(std::string(32, 'b'), "gone").ok());
  const std::unique_ptr<Repository> keyless = *Repository::OpenWithoutKey(files_, kFolder, false);
  EXPECT_TRUE(keyless->info().is_encrypted);
  EXPECT_TRUE(
      keyless->OpenSession({std::string(32, 'b'), "p", {1, 3}}).status().Is(reason::kKeyMissing));
  ByteVector plain(kBlockSize);
  EXPECT_TRUE(
      keyless->ReadChunk(repository_->naming().ChunkName(text_), plain, Proof::kPlain, nullptr)
          .Is(reason::kKeyMissing));
  EXPECT_TRUE(keyless->CheckKey().Is(reason::kKeyMissing));
  CollectOptions options;
  options.token = {1, 4};
  options.undo_window = 0;
  const Cancel cancel;
  Progress progress;
  const Result<CollectReport> report = Collect(keyless.get(), options, &cancel, &progress);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->dropped_backups, std::vector{std::string(32, 'b') + "/gone"});
  EXPECT_EQ(report->deleted.count, 1u);
  Open();
  EXPECT_TRUE(Read(text_).ok());
  EXPECT_TRUE(Read(changed_).ok());
}

}  // namespace
}  // namespace blockferry
