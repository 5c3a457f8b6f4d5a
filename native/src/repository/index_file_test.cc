// Index files by themselves: written, looked up, merged, damaged.
#include "repository/index_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "core/crash_files.h"
#include "repository/index_merge.h"

namespace blockferry {
namespace {

using namespace index_format;
using Entries = std::vector<IndexEntry>;

constexpr uint32_t kPackCount = 40;
const RepositoryId kRepository = {std::byte{7}};

Entries RandomEntries(std::mt19937_64& random, size_t count) {
  Entries entries;
  for (size_t i = 0; i < count; ++i) {
    IndexKey key{random(), random()};
    // Names that begin alike, and names that several packs hold, more of them than a page has.
    if (random() % 50 == 0) key.low &= 0xff000000'ffffffff;
    if (random() % 50 == 0 && !entries.empty()) key = entries[random() % entries.size()].key;
    if (count > 5000 && i % 20 == 0) key = {1000, 1000};
    entries.push_back({key, static_cast<uint32_t>(random() % kPackCount),
                       static_cast<uint32_t>(random() % (1 << 25)),
                       1 + static_cast<uint32_t>(random() % 66560),
                       random() % 10 == 0 ? RecordType::kMapNode : RecordType::kChunk});
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::vector<IndexPack> Packs() {
  std::vector<IndexPack> packs(kPackCount);
  for (uint32_t i = 0; i < kPackCount; ++i) packs[i] = {{std::byte(i), std::byte{9}}, i, i};
  return packs;
}

class IndexFileTest : public testing::Test {
 protected:
  IndexFileTest() { std::printf("SEED=%u\n", seed_); }

  // The file is named as its id says, in the root.
  void Write(const std::string& name, const Entries& entries) {
    IndexFileId id;
    ASSERT_TRUE(ParseHex(name.substr(0, 2 * id.size()), id));
    std::unique_ptr<File> file = *files_.CreateExclusive("/" + name);
    IndexWriter writer(file.get(), kRepository, id);
    for (const IndexEntry& entry : entries) ASSERT_TRUE(writer.Add(entry).ok());
    ASSERT_TRUE(writer.Finish(Packs()).ok());
  }
  Result<std::shared_ptr<IndexFile>> Open(const std::string& name) {
    Result<std::shared_ptr<IndexFile>> file =
        IndexFile::Open(*files_.OpenForRead("/" + name), name, kRepository, &budget_);
    if (!file.ok()) return file;
    // The numbers of this process are others.
    std::vector<uint32_t> numbers((*file)->TakePacks().size());
    for (uint32_t i = 0; i < numbers.size(); ++i) numbers[i] = i + 100;
    (*file)->SetNumbers(numbers);
    return file;
  }
  // What the file says of the key, as `entries` has it; nullopt when it cannot tell.
  static std::optional<Entries> Find(const IndexFile& file, const IndexKey& key) {
    Entries found;
    if (!file.Find(key, &found)) return std::nullopt;
    for (IndexEntry& entry : found) entry.pack -= 100;
    return found;
  }
  static Entries Expected(const Entries& entries, const IndexKey& key) {
    auto at = std::lower_bound(
        entries.begin(), entries.end(), key,
        [](const IndexEntry& entry, const IndexKey& other) { return entry.key < other; });
    Entries equal;
    for (; at != entries.end() && at->key == key; ++at) equal.push_back(*at);
    return equal;
  }

  uint32_t seed_ = std::random_device()();
  std::mt19937_64 random_{seed_};
  CrashFiles files_;
  DirectoryBudget budget_{1};
};

constexpr char kName[] = "0123456789abcdef.index";

TEST_F(IndexFileTest, FindsEveryNameAndNoOther) {
  for (const size_t count : {0, 1, 2, 144, 145, 146, 3480, 3481, 20000}) {
    SCOPED_TRACE(count);
    const Entries entries = RandomEntries(random_, count);
    Write(kName, entries);
    Result<std::shared_ptr<IndexFile>> file = Open(kName);
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ((*file)->entry_count(), count);
    for (size_t i = 0; i < entries.size(); i += entries[i].key.low == 1000 ? 97 : 1) {
      ASSERT_EQ(Find(**file, entries[i].key), Expected(entries, entries[i].key));
      IndexKey other = entries[i].key;
      other.high ^= 1;
      ASSERT_EQ(Find(**file, other), Expected(entries, other));
      other.low ^= random_();
      ASSERT_EQ(Find(**file, other), Expected(entries, other));
    }
    EXPECT_EQ(Find(**file, {0, 0}), Entries());
    EXPECT_EQ(Find(**file, {~uint64_t{0}, ~uint64_t{0}}), Entries());
    ASSERT_TRUE(files_.Remove(std::string("/") + kName).ok());
  }
}

TEST_F(IndexFileTest, AnswersRightlyOrNotAtAllOnceItIsDamaged) {
  const Entries entries = RandomEntries(random_, 8000);
  Write(kName, entries);
  ByteVector& content = *files_.Content(std::string("/") + kName);
  const ByteVector whole = content;
  int refused = 0;
  int silent = 0;
  for (int round = 0; round < 300; ++round) {
    content = whole;
    SCOPED_TRACE(round);
    if (round % 3 == 0) content.resize(random_() % whole.size());
    if (round % 3 == 1) content[random_() % whole.size()] ^= std::byte(1 << random_() % 8);
    if (round % 3 == 2) {  // A page lies in the place of another, or is one of zeroes.
      const size_t page_count = whole.size() / kPageSize - 1;
      const size_t to = (1 + random_() % page_count) * kPageSize;
      const size_t from = (1 + random_() % page_count) * kPageSize;
      if (from == to) continue;
      std::copy_n(whole.begin() + static_cast<ptrdiff_t>(from), kPageSize,
                  content.begin() + static_cast<ptrdiff_t>(to));
      if (round % 2 == 0)
        std::fill_n(content.begin() + static_cast<ptrdiff_t>(to), kPageSize, std::byte{0});
    }
    Result<std::shared_ptr<IndexFile>> file = Open(kName);
    if (!file.ok()) {
      // The version is looked at first: with another one, where would the digest be?
      EXPECT_TRUE(file.status().Is(reason::kRepositoryDamaged) ||
                  file.status().Is(reason::kRepositoryTooNew))
          << file.status().message();
      ++refused;
      continue;
    }
    for (size_t i = 0; i < entries.size(); i += 29) {
      const std::optional<Entries> found = Find(**file, entries[i].key);
      if (found) {
        ASSERT_EQ(*found, Expected(entries, entries[i].key));
      } else {
        EXPECT_EQ((*file)->health(), IndexFile::Health::kDamaged);
      }
    }
    silent += (*file)->health() == IndexFile::Health::kGood ? 1 : 0;
  }
  EXPECT_GE(refused, 100);
  // A flipped bit of the header page or of padding, and pages of names that were not asked for.
  EXPECT_LT(silent, 30);
}

TEST_F(IndexFileTest, OfAnotherRepositoryOrNameOrVersionIsRefused) {
  Write(kName, RandomEntries(random_, 200));
  const auto open = [&](const std::string& name, const RepositoryId& repository) {
    return IndexFile::Open(*files_.OpenForRead(std::string("/") + kName), name, repository,
                           &budget_)
        .status();
  };
  EXPECT_TRUE(open(kName, kRepository).ok());
  EXPECT_TRUE(open(kName, RepositoryId{}).Is(reason::kRepositoryDamaged));
  EXPECT_TRUE(open("0123456789abcdee.index", kRepository).Is(reason::kRepositoryDamaged));
  ByteVector& content = *files_.Content(std::string("/") + kName);
  content[content.size() - kFooterSize + 16] = std::byte{2};
  EXPECT_TRUE(open(kName, kRepository).Is(reason::kRepositoryTooNew));
}

TEST_F(IndexFileTest, OfSeveralMergedHasTheirEntriesOnceButThoseOfPacksThatAreGone) {
  Entries all;
  IndexFiles inputs;
  for (int i = 0; i < 5; ++i) {
    Entries entries = RandomEntries(random_, 1 + random_() % 6000);
    // Two files cover the same packs.
    if (i > 0)
      entries.insert(entries.end(), all.begin(),
                     all.begin() + static_cast<ptrdiff_t>(all.size() / 3));
    std::sort(entries.begin(), entries.end());
    const std::string name = "000000000000000" + std::to_string(i) + ".index";
    Write(name, entries);
    inputs.push_back(*Open(name));
    all.insert(all.end(), entries.begin(), entries.end());
  }
  // The packs with odd numbers are gone.
  std::vector<uint32_t> numbers;
  for (uint32_t i = 0; i < kPackCount; i += 2) numbers.push_back(100 + i);
  std::erase_if(all, [](const IndexEntry& entry) { return entry.pack % 2 == 1; });
  for (IndexEntry& entry : all) entry.pack /= 2;
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());

  std::unique_ptr<File> file = *files_.CreateExclusive(std::string("/") + kName);
  IndexWriter writer(file.get(), kRepository,
                     {std::byte{0x01}, std::byte{0x23}, std::byte{0x45}, std::byte{0x67},
                      std::byte{0x89}, std::byte{0xab}, std::byte{0xcd}, std::byte{0xef}});
  int asked = 0;
  const auto keep_on = [&] { return ++asked > 0; };
  ASSERT_TRUE(MergeIndexFiles(inputs, numbers, keep_on, &writer).ok());
  ASSERT_TRUE(writer.Finish(std::vector<IndexPack>(numbers.size())).ok());
  EXPECT_GE(asked, 5);
  std::shared_ptr<IndexFile> merged = *Open(kName);
  Entries found;
  ByteVector buffer;
  for (uint32_t group = 0; group < merged->group_count(); ++group) {
    Entries entries;
    ASSERT_TRUE(merged->ReadGroup(group, &buffer, &entries).ok());
    found.insert(found.end(), entries.begin(), entries.end());
  }
  EXPECT_EQ(found, all);

  const Status cancelled = MergeIndexFiles(
      inputs, numbers, [] { return false; }, &writer);
  EXPECT_TRUE(cancelled.Is(reason::kCancelled));
  ByteVector& content = *files_.Content("/0000000000000002.index");
  content[kPageSize + 200] ^= std::byte{1};
  const Status damaged = MergeIndexFiles(inputs, numbers, keep_on, &writer);
  EXPECT_TRUE(damaged.Is(reason::kRepositoryDamaged));
  EXPECT_EQ(inputs[2]->health(), IndexFile::Health::kDamaged);
}

}  // namespace
}  // namespace blockferry
