#include <array>
#include <cassert>
#include <cstring>

#include "bytes_file.h"
#include "fuzz_target.h"
#include "repository/index_file.h"
#include "repository/index_format.h"

namespace blockferry::fuzz {
namespace {

using namespace index_format;

constexpr RepositoryId kRepository{std::byte{1}};
constexpr IndexFileId kFile{std::byte{2}};

// Pages are mostly zeroes: an input has only the first bytes of each one.
constexpr size_t kPageStart = 512;

// What an index file is written to.
class GrowingFile final : public File {
 public:
  Result<size_t> ReadAt(uint64_t, MutableBytes) override { return size_t{0}; }
  Status Append(Bytes more) override {
    bytes.insert(bytes.end(), more.begin(), more.end());
    return {};
  }
  Status Sync() override { return {}; }
  Result<uint64_t> Size() override { return uint64_t{bytes.size()}; }

  ByteVector bytes;
};

void MakePageRight(MutableBytes page) {
  std::memset(page.data(), 0, kDigestSize);
  const Digest digest = Blake3Hash(page);
  std::memcpy(page.data(), digest.data(), kDigestSize);
}

// The last bytes: packs, fences and footer.
void MakeEndRight(MutableBytes end) {
  if (end.size() < kFooterSize) return;
  const MutableBytes told = end.last(sizeof(Digest) + kMagicSize);
  const Digest digest = Blake3Hash(end.first(end.size() - told.size()));
  std::memcpy(told.data(), digest.data(), sizeof(Digest));
}

// The first byte: bit 0 makes the pages' digests right, bit 1 that of the end, the rest is the
// number of pages. The pages' first bytes follow, then the end.
void Run(Bytes input) {
  if (input.empty()) return;
  const unsigned first = std::to_integer<unsigned>(input[0]);
  const size_t page_count = first >> 2;
  Bytes rest = input.subspan(1);
  ByteVector bytes;
  for (size_t i = 0; i < page_count; ++i) {
    const Bytes start = rest.first(std::min(rest.size(), kPageStart));
    rest = rest.subspan(start.size());
    ByteVector page(start.begin(), start.end());
    page.resize(kPageSize);
    if ((first & 1) != 0) MakePageRight(page);
    bytes.insert(bytes.end(), page.begin(), page.end());
  }
  ByteVector end(rest.begin(), rest.end());
  if ((first & 2) != 0) MakeEndRight(end);
  bytes.insert(bytes.end(), end.begin(), end.end());

  DirectoryBudget budget(1);
  const Result<std::shared_ptr<IndexFile>> opened =
      IndexFile::Open(std::make_unique<BytesFile>(bytes), "", kRepository, &budget);
  if (!opened.ok()) return;
  IndexFile& index = **opened;
  const std::vector<IndexPack> packs = index.TakePacks();
  index.SetNumbers(std::vector<uint32_t>(packs.size(), 7));
  static_cast<void>(index.CheckAll());
  ByteVector buffer;
  std::vector<IndexEntry> entries;
  std::vector<IndexEntry> found;
  for (uint32_t group = 0; group < index.group_count(); ++group) {
    if (!index.ReadGroup(group, &buffer, &entries).ok()) continue;
    for (const IndexEntry& entry : entries) {
      assert(entry.pack < packs.size());
      if (!index.Find(entry.key, &found)) break;
    }
  }
  for (const IndexEntry& entry : found) assert(entry.pack == 7);
}

std::vector<ByteVector> Seeds() {
  std::vector<ByteVector> seeds;
  for (const uint32_t entry_count : {0u, 1u, 16u, 200u}) {
    GrowingFile file;
    IndexWriter writer(&file, kRepository, kFile);
    std::vector<IndexPack> packs(2);
    packs[0].id[0] = std::byte{1};
    packs[1].id[0] = std::byte{2};
    for (uint32_t i = 0; i < entry_count; ++i) {
      const IndexEntry entry{{uint64_t{i} << 50, i}, i % 2, 64 * i, 60, RecordType::kChunk};
      if (!writer.Add(entry).ok()) return {};
    }
    if (!writer.Finish(packs).ok()) return {};
    const size_t page_count =
        (file.bytes.size() - kFooterSize - packs.size() * kPackSize) / kPageSize;
    ByteVector input;
    for (size_t page = 0; page < page_count; ++page) {
      const Bytes start = Bytes(file.bytes).subspan(page * kPageSize, kPageStart);
      input.insert(input.end(), start.begin(), start.end());
    }
    const Bytes end = Bytes(file.bytes).subspan(page_count * kPageSize);
    input.insert(input.end(), end.begin(), end.end());
    for (const unsigned right : {0u, 3u}) {
      seeds.push_back(InputOf(static_cast<uint8_t>(page_count << 2 | right), input));
    }
  }
  return seeds;
}

}  // namespace

const Target kIndex{"index", Run, Seeds};

}  // namespace blockferry::fuzz
