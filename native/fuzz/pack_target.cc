#include <algorithm>
#include <cassert>
#include <cstring>

#include "bytes_file.h"
#include "compress/codec.h"
#include "core/crash_files.h"
#include "core/endian.h"
#include "fuzz_target.h"
#include "repository/pack_format.h"
#include "repository/pack_reader.h"

namespace blockferry::fuzz {
namespace {

using namespace pack_format;

constexpr uint8_t kMendHeader = 1;
constexpr uint8_t kMendTable = 2;
constexpr uint8_t kMendRecords = 4;
constexpr RepositoryId kRepository{std::byte{1}};
constexpr PackId kId{std::byte{2}};
constexpr uint64_t kInputSizeMax = 1 << 20;

// One file, whatever its path.
class OneFile final : public FileSystem {
 public:
  explicit OneFile(Bytes bytes) : bytes_(bytes) {}
  Result<std::unique_ptr<File>> OpenForRead(const std::string&) override {
    return std::unique_ptr<File>(std::make_unique<BytesFile>(bytes_));
  }
  Result<std::unique_ptr<File>> CreateExclusive(const std::string&) override { return Unused(); }
  Status CreateFolder(const std::string&) override { return Unused(); }
  Status Rename(const std::string&, const std::string&) override { return Unused(); }
  Status RenameNoReplace(const std::string&, const std::string&) override { return Unused(); }
  Status SyncFolder(const std::string&) override { return Unused(); }
  Result<std::vector<FolderEntry>> List(const std::string&) override { return Unused(); }
  Status Remove(const std::string&) override { return Unused(); }
  Status RemoveFolder(const std::string&) override { return Unused(); }

 private:
  static Status Unused() { return Status(reason::kNotFound, "not for reading"); }
  Bytes bytes_;
};

void MendDigest(MutableBytes digested, size_t size, std::byte* to) {
  const Digest digest = Blake3Hash(digested);
  std::memcpy(to, digest.data(), size);
}

void MendHeader(MutableBytes file) {
  if (file.size() < kHeaderSize) return;
  const size_t digested = kHeaderSize - kShortDigestSize;
  MendDigest(file.first(digested), kShortDigestSize, file.data() + digested);
}

size_t PatchCount(Bytes rows) {
  size_t count = 0;
  for (size_t at = 0; at < rows.size(); at += kEntrySize) {
    count += rows[at + kNameSize + 12] == std::byte{3} ? 1 : 0;
  }
  return count;
}

void MendTable(MutableBytes file) {
  if (file.size() < kHeaderSize + kFooterSize) return;
  std::byte* footer = file.data() + file.size() - kFooterSize;
  const uint64_t rows = uint64_t{LoadLe<uint32_t>(footer + 8)} * kEntrySize;
  const size_t room = file.size() - kHeaderSize - kFooterSize;
  // As many bases as there are patches among the rows that lie before them.
  for (uint64_t bases = 0; rows + bases <= room && bases <= 8 * kBaseSize; bases += kBaseSize) {
    const size_t offset = file.size() - kFooterSize - static_cast<size_t>(rows + bases);
    if (PatchCount(file.subspan(offset, rows)) * kBaseSize != bases) continue;
    StoreLe(footer, uint64_t{offset});
    MendDigest(file.subspan(offset, static_cast<size_t>(rows + bases) + kFooterDigestedSize),
               kFooterDigestSize, footer + kFooterDigestedSize);
    return;
  }
}

void ReadRecords(const PackTable& table, MutableBytes file, bool mend) {
  ByteVector plain(kBlockSize);
  for (const PackEntry& entry : table.entries) {
    if (mend) {
      const MutableBytes record = file.subspan(entry.offset, kRecordHeaderSize + entry.stored_size);
      MendDigest(record.subspan(kShortDigestSize), kShortDigestSize, record.data());
    }
    BytesFile whole(file);
    const RecordRequest request{entry.type, entry.name, entry.offset, entry.stored_size, false};
    if (entry.type == RecordType::kPatch) {
      const Result<Patch> patch = ReadPatchAt(whole, request, plain.size());
      if (patch.ok()) {
        LayPagesOver(patch->head.pages, patch->pages, MutableBytes(plain).first(patch->plain_size));
      }
      continue;
    }
    const Result<size_t> size = ReadRecordAt(whole, request, plain);
    assert(!size.ok() || (*size > 0 && *size <= plain.size()));
  }
}

void Run(Bytes input) {
  if (input.empty() || input.size() > kInputSizeMax) return;
  const uint8_t mend = std::to_integer<uint8_t>(input[0]);
  ByteVector file(input.begin() + 1, input.end());
  if (mend & kMendHeader) MendHeader(file);
  if (mend & kMendTable) MendTable(file);
  OneFile files(file);
  const Result<PackTable> table = ReadPackTable(files, "pack", kRepository, kId);
  if (table.ok()) ReadRecords(*table, file, (mend & kMendRecords) != 0);
}

void AddPatch(PackWriter* pack, Encoder* encoder) {
  PatchHead head{Digest{std::byte{5}}, {}};
  head.pages.set(0);
  const ByteVector page(200, std::byte{'p'});
  ByteVector stored(kPatchHeadSize + page.size());
  const EncodedBlock encoded = encoder->Encode(page, MutableBytes(stored).subspan(kPatchHeadSize));
  EncodePatchHead(head, MutableBytes(stored).first(kPatchHeadSize));
  std::copy(encoded.bytes.begin(), encoded.bytes.end(), stored.begin() + kPatchHeadSize);
  stored.resize(kPatchHeadSize + encoded.bytes.size());
  NewRecord record{RecordType::kPatch, encoded.codec, Blake3Hash(stored),
                   static_cast<uint32_t>(page.size()), stored};
  record.base = head.base;
  const Result<PackEntry> entry = pack->Append(record);
  assert(entry.ok());
  pack->Add(*entry);
}

// Small chunks of every codec: the fuzzer changes bytes of each.
std::vector<ByteVector> Seeds() {
  std::vector<ByteVector> seeds;
  for (const Compression& compression :
       {Compression{Codec::kStored}, Compression{Codec::kLz4}, Compression{Codec::kZstd, 1}}) {
    CrashFiles files;
    Result<std::unique_ptr<PackWriter>> pack =
        PackWriter::Create(files, "/new", kRepository, kId, "point", kTargetSize);
    assert(pack.ok());
    const std::unique_ptr<Encoder> encoder = NewEncoder(compression);
    for (unsigned i = 0; i < 3; ++i) {
      ByteVector plain(96 + 32 * i, static_cast<std::byte>('a' + i));
      ByteVector out(plain.size());
      const EncodedBlock encoded = encoder->Encode(plain, out);
      const RecordType type = i == 0 ? RecordType::kMapNode : RecordType::kChunk;
      const Result<PackEntry> entry =
          (*pack)->Append({type, encoded.codec, Blake3Hash(plain),
                           static_cast<uint32_t>(plain.size()), encoded.bytes});
      assert(entry.ok());
      (*pack)->Add(*entry);
    }
    AddPatch(pack->get(), encoder.get());
    const Status sealed = (*pack)->Seal("/", "/pack");
    assert(sealed.ok());
    const Result<ByteVector> bytes = ReadWholeFile(files, "/pack", kInputSizeMax);
    assert(bytes.ok());
    seeds.push_back(InputOf(kMendHeader | kMendTable | kMendRecords, *bytes));
  }
  return seeds;
}

}  // namespace

const Target kPack{"pack", Run, Seeds};

}  // namespace blockferry::fuzz
