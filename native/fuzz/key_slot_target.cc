#include <cassert>
#include <cstring>

#include "bytes_file.h"
#include "core/crash_files.h"
#include "fuzz_target.h"
#include "repository/key_slot_format.h"
#include "repository/repository_keys.h"

namespace blockferry::fuzz {
namespace {

using namespace key_slot_format;

constexpr RepositoryId kRepository{std::byte{1}};
constexpr size_t kSlotIdAt = kMagicSize + 4 + 4 + 16;

// Of a passphrase each execution would cost 0.2 s.
Secret TestSecret() { return {Secret::Kind::kKey, ByteVector(kKeySize, std::byte{9})}; }

// A folder that holds one slot, under the name that its own id asks for.
class OneSlot final : public FileSystem {
 public:
  explicit OneSlot(Bytes bytes) : bytes_(bytes) {}
  Result<std::unique_ptr<File>> OpenForRead(const std::string&) override {
    return std::unique_ptr<File>(std::make_unique<BytesFile>(bytes_));
  }
  Result<std::vector<FolderEntry>> List(const std::string&) override {
    std::string name = "0000000000000000";
    if (bytes_.size() >= kSlotIdAt + kSlotIdSize) {
      name = HexOf(bytes_.subspan(kSlotIdAt, kSlotIdSize));
    }
    return std::vector<FolderEntry>{{name + kKeySuffix, false}};
  }
  Result<std::unique_ptr<File>> CreateExclusive(const std::string&) override { return Unused(); }
  Status CreateFolder(const std::string&) override { return Unused(); }
  Status Rename(const std::string&, const std::string&) override { return Unused(); }
  Status RenameNoReplace(const std::string&, const std::string&) override { return Unused(); }
  Status SyncFolder(const std::string&) override { return Unused(); }
  Status Remove(const std::string&) override { return Unused(); }
  Status RemoveFolder(const std::string&) override { return Unused(); }

 private:
  static Status Unused() { return Status(reason::kNotFound, "not for reading"); }
  Bytes bytes_;
};

// The lowest bit of the first byte: the digest is made right.
void Run(Bytes input) {
  if (input.empty()) return;
  ByteVector bytes(input.begin() + 1, input.end());
  if ((std::to_integer<unsigned>(input[0]) & 1) != 0 && bytes.size() >= sizeof(Digest)) {
    const size_t digested = bytes.size() - sizeof(Digest);
    const Digest digest = Blake3Hash(Bytes(bytes).first(digested));
    std::memcpy(bytes.data() + digested, digest.data(), sizeof(Digest));
  }
  OneSlot files(bytes);
  const Result<std::vector<KeySlot>> slots = ListKeySlots(files, "/r", kRepository);
  assert(slots.ok());
  static_cast<void>(UnlockKeys(files, "/r", kRepository, TestSecret()).ok());
}

std::vector<ByteVector> Seeds() {
  std::vector<ByteVector> seeds;
  for (const char* label : {"", "installation here"}) {
    CrashFiles files;
    Status made = files.CreateFolder("/r");
    assert(made.ok());
    const Result<KeySlot> slot =
        AddKeySlot(files, "/r", kRepository, RepositoryKeys{}, TestSecret(), label);
    assert(slot.ok());
    const Result<ByteVector> bytes = ReadWholeFile(
        files, std::string("/r/") + kKeysFolder + "/" + slot->slot_id + kKeySuffix, kFileSizeMax);
    assert(bytes.ok());
    seeds.push_back(InputOf(1, *bytes));
  }
  return seeds;
}

}  // namespace

const Target kKeySlot{"key_slot", Run, Seeds};

}  // namespace blockferry::fuzz
