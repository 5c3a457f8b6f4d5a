#include "stream/move_disk.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "core/endian.h"
#include "repository/block_geometry.h"
#include "source/fake_source.h"
#include "stream/pipeline.h"

namespace blockferry {
namespace {

// Takes everything down, in memory.
class RecordingChannel final : public Channel {
 public:
  explicit RecordingChannel(std::set<std::string> known = {}) : known_(std::move(known)) {}

  void FindLacking(std::span<const Digest> asked, std::span<bool> lacks) override {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < asked.size(); ++i) {
      lacks[i] = hint.value_or(known_.count(HexOf(asked[i])) == 0);
    }
  }
  Result<bool> Offer(uint64_t block_index, const Digest& name) override {
    if (at_first_offer) std::exchange(at_first_offer, nullptr)();
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(Count());
    names[block_index] = HexOf(name);
    offered.push_back(block_index);
    return known_.count(HexOf(name)) == 0;
  }
  std::optional<BaseChunk> ReadBase(uint64_t block_index, MutableBytes plain) override {
    std::lock_guard lock(mutex_);
    const auto found = bases.find(block_index);
    if (found == bases.end() || found->second.size() != plain.size()) return std::nullopt;
    std::copy(found->second.begin(), found->second.end(), plain.begin());
    return BaseChunk{Digest{std::byte{1}}, static_cast<uint32_t>(plain.size())};
  }
  Result<bool> Send(const Frame& frame) override {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(Count());
    if (frame.record.type == RecordType::kPatch) return SendPatch(frame);
    ByteVector plain(frame.record.plain_size);
    RETURN_IF_ERROR(Decode(frame.record.codec, frame.record.stored, plain));
    blocks[frame.block_index] = plain;
    known_.insert(HexOf(frame.record.name));
    return true;
  }
  Status Keep(uint64_t first_block, uint64_t end_block) override {
    RETURN_IF_ERROR(Count());
    for (uint64_t i = first_block; i < end_block; ++i) kept.insert(i);
    return Status();
  }
  void CountRead(uint64_t bytes) override { read_bytes += bytes; }
  Result<std::optional<Digest>> Seal() override {
    RETURN_IF_ERROR(Count());
    sealed = true;
    return std::optional<Digest>();
  }

  std::map<uint64_t, ByteVector> bases;
  // Whether it has lost them when the patches arrive.
  bool has_lost_bases = false;
  std::set<uint64_t> patched;
  std::function<void()> at_first_offer;
  // Of the calls that may fail, counted from 0.
  std::optional<uint64_t> failing_call;
  // What FindLacking says of all names, instead of the truth.
  std::optional<bool> hint;
  std::map<uint64_t, std::string> names;
  std::vector<uint64_t> offered;
  std::map<uint64_t, ByteVector> blocks;
  std::set<uint64_t> kept;
  uint64_t read_bytes = 0;
  bool sealed = false;

 private:
  Result<bool> SendPatch(const Frame& frame) {
    if (has_lost_bases) return false;
    PatchHead head;
    EXPECT_TRUE(DecodePatchHead(frame.record.stored, frame.record.plain_size, &head));
    ByteVector pages(SizeOfPages(head.pages, frame.record.plain_size));
    RETURN_IF_ERROR(Decode(frame.record.codec, frame.record.stored.subspan(kPatchHeadSize), pages));
    ByteVector plain = bases.at(frame.block_index);
    LayPagesOver(head.pages, pages, plain);
    blocks[frame.block_index] = plain;
    patched.insert(frame.block_index);
    known_.insert(HexOf(frame.record.name));
    return true;
  }
  Status Count() {
    if (call_count_++ != failing_call) return Status();
    return Status(reason::kRepositoryFull, "as the test wanted");
  }

  uint64_t call_count_ = 0;
  std::mutex mutex_;  // For known_, which any thread asks about.
  std::set<std::string> known_;
};

// Both ways to move a disk keep the same promises.
using MoveFunction = Result<std::optional<Digest>> (*)(const Line&);

Result<std::optional<Digest>> MoveOnThreeWorkers(const Line& line) {
  return MoveDiskInParallel(line, {3});
}

class MoveDiskTest : public ::testing::TestWithParam<MoveFunction> {
 protected:
  Status Move(FakeSource* source, const ChangedBlockMap& changed, RecordingChannel* channel) {
    BlockPlan plan(source, &changed);
    return ToStatus(GetParam()({source, &plan, &naming_, {}, channel, &cancel_, &progress_}));
  }

  Naming naming_{Digest{}};
  Cancel cancel_;
  Progress progress_;
};

INSTANTIATE_TEST_SUITE_P(Line, MoveDiskTest, testing::Values(MoveDisk, MoveOnThreeWorkers),
                         [](const auto& info) {
                           return std::string(info.param == MoveDisk ? "Plain" : "Parallel");
                         });

constexpr uint64_t kBlocks = 100;
constexpr uint64_t kSize = kBlocks * kBlockSize + 1234;

// Every block is different; block 7 is allocated but all zeroes.
ByteVector Content() {
  ByteVector content(kSize);
  for (uint64_t i = 0; i < kSize; ++i) content[i] = static_cast<std::byte>((i / 997 + i) % 255 + 1);
  std::fill_n(content.begin() + 7 * kBlockSize, kBlockSize, std::byte{0});
  return content;
}

Bytes BlockOf(const ByteVector& content, uint64_t index) {
  return Bytes(content).subspan(index * kBlockSize, BlockSizeAt(content.size(), index));
}

TEST_P(MoveDiskTest, SendsEveryBlockThatIsNotZeroInOrder) {
  const ByteVector content = Content();
  FakeSource source({{0, kSize, true, true}}, content);
  RecordingChannel channel;
  ASSERT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).ok());
  EXPECT_TRUE(channel.sealed);
  EXPECT_EQ(channel.names.size(), kBlocks);
  EXPECT_EQ(channel.names.count(7), 0u);
  EXPECT_TRUE(std::is_sorted(channel.offered.begin(), channel.offered.end()));
  for (const auto& [index, plain] : channel.blocks) {
    EXPECT_TRUE(Equal(plain, BlockOf(content, index))) << index;
  }
  EXPECT_EQ(channel.blocks.at(kBlocks).size(), 1234u);
  EXPECT_EQ(channel.read_bytes, kSize);
  EXPECT_EQ(progress_.position_bytes.value(), kSize);
}

TEST_P(MoveDiskTest, KeepsManyReadsUnderWayButNotMoreThanTheLimit) {
  FakeSource source({{0, 4096 * uint64_t{kBlockSize}, true, true}}, {});
  RecordingChannel channel;
  ASSERT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).ok());
  EXPECT_EQ(source.reads_under_way_max(), GetParam() == MoveDisk ? 1 : kReadCountMax);
}

TEST_P(MoveDiskTest, SendsABlockThatComesTwiceOnlyOnce) {
  ByteVector content(2 * kBlockSize, std::byte{9});
  FakeSource source({{0, content.size(), true, true}}, content);
  RecordingChannel channel;
  ASSERT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).ok());
  EXPECT_EQ(channel.blocks.size(), 1u);
  EXPECT_EQ(channel.names.size(), 2u);
  EXPECT_EQ(channel.names[0], channel.names[1]);
}

TEST_P(MoveDiskTest, ReadsOnlyMarkedBlocksAndKeepsTheOthers) {
  const ByteVector content = Content();
  FakeSource source({{0, kSize, true, true}}, content);
  const Result<ChangedBlockMap> changed = ChangedBlockMap::FromExtents(
      {3 * kBlockSize + 5, 10, 20 * kBlockSize, 2 * kBlockSize}, kSize);
  ASSERT_TRUE(changed.ok());
  RecordingChannel channel;
  ASSERT_TRUE(Move(&source, *changed, &channel).ok());
  EXPECT_EQ(channel.offered, (std::vector<uint64_t>{3, 20, 21}));
  EXPECT_EQ(channel.kept.size(), kBlocks + 1 - 3);
  EXPECT_EQ(source.bytes_read(), 3u * kBlockSize);
}

TEST_P(MoveDiskTest, ReturnsTheFailureOfARead) {
  FakeSource source({{0, kSize, true, true}}, Content());
  source.FailRead(5);
  RecordingChannel channel;
  const Status failure = Move(&source, ChangedBlockMap::All(), &channel);
  EXPECT_TRUE(failure.Is(reason::kSourceReadFailed));
  EXPECT_FALSE(channel.sealed);
  // The pipeline may have been stopped before it wrote all that was read.
  EXPECT_LE(progress_.position_bytes.value(), 5 * kReadSizeBytesMax);
  if (GetParam() == MoveDisk) {
    EXPECT_EQ(progress_.position_bytes.value(), 5 * kReadSizeBytesMax);
  }
}

TEST_P(MoveDiskTest, EndsInTimeWhateverCallOfTheTargetFails) {
  // Far more than the pipeline holds at once; the second half is kept.
  const uint64_t half = 500 * uint64_t{kBlockSize};
  ByteVector content(2 * half);
  for (size_t at = 0; at < content.size(); at += 512)
    StoreLe(content.data() + at, uint64_t{at + 1});
  const Result<ChangedBlockMap> changed = ChangedBlockMap::FromExtents({0, half}, content.size());
  ASSERT_TRUE(changed.ok());
  // Offer and Send for each block that is read, then Keep, then Seal.
  for (const uint64_t failing : {0u, 1u, 2u, 500u, 999u, 1000u, 1001u}) {
    FakeSource source({{0, content.size(), true, true}}, content);
    RecordingChannel channel;
    channel.failing_call = failing;
    const Status failure = Move(&source, *changed, &channel);
    EXPECT_TRUE(failure.Is(reason::kRepositoryFull)) << failing;
    EXPECT_FALSE(channel.sealed);
  }
}

TEST_P(MoveDiskTest, SendsWhatIsWantedWhateverTheHintSaid) {
  for (const bool hint : {false, true}) {
    const ByteVector content = Content();
    FakeSource source({{0, kSize, true, true}}, content);
    RecordingChannel channel;
    channel.hint = hint;
    ASSERT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).ok());
    EXPECT_EQ(channel.blocks.size(), kBlocks);
    for (const auto& [index, plain] : channel.blocks) {
      EXPECT_TRUE(Equal(plain, BlockOf(content, index))) << index;
    }
  }
}

TEST_P(MoveDiskTest, LeavesNoAnswerOfTheSourceUntakenWhileTheTargetHangs) {
  // Far more than the pipeline holds at once.
  const ByteVector content(1000 * kBlockSize, std::byte{9});
  FakeSource source({{0, content.size(), true, true}}, content);
  RecordingChannel channel;
  size_t under_way = SIZE_MAX;
  channel.at_first_offer = [&] {
    const auto late = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    do {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      under_way = source.reads_under_way();
    } while (under_way > 0 && std::chrono::steady_clock::now() < late);
  };
  ASSERT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).ok());
  EXPECT_EQ(under_way, 0u);
}

TEST_P(MoveDiskTest, SealsADiskOfNoBytes) {
  FakeSource source({}, {});
  RecordingChannel channel;
  ASSERT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).ok());
  EXPECT_TRUE(channel.sealed);
  EXPECT_TRUE(channel.names.empty());
}

TEST_P(MoveDiskTest, SealsNothingWhenCancelled) {
  FakeSource source({{0, kSize, true, true}}, Content());
  RecordingChannel channel;
  cancel_.Request();
  EXPECT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).Is(reason::kCancelled));
  EXPECT_FALSE(channel.sealed);
}

// Blocks 3, 4 and the short last one changed a little, 5 much; 6 has no base, and 8 only one of
// another size.
TEST_P(MoveDiskTest, SendsPatchesOfBlocksThatChangedALittle) {
  const ByteVector content = Content();
  for (const bool has_lost_bases : {false, true}) {
    FakeSource source({{0, kSize, true, true}}, content);
    RecordingChannel channel;
    channel.has_lost_bases = has_lost_bases;
    for (const uint64_t index : {3, 4, 5, 8}) {
      const Bytes block = BlockOf(content, index);
      channel.bases[index].assign(block.begin(), block.end());
    }
    channel.bases[3][0] ^= std::byte{1};
    channel.bases[3][kBlockSize - 1] ^= std::byte{1};
    channel.bases[4][2 * kPageSize] ^= std::byte{1};
    for (size_t at = 0; at < kBlockSize; at += kPageSize) channel.bases[5][at] ^= std::byte{1};
    channel.bases[8].resize(100);
    ASSERT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).ok());
    EXPECT_EQ(channel.patched, has_lost_bases ? std::set<uint64_t>() : std::set<uint64_t>({3, 4}));
    EXPECT_EQ(channel.blocks.size(), kBlocks);
    for (const auto& [index, plain] : channel.blocks) {
      EXPECT_TRUE(Equal(plain, BlockOf(content, index))) << index;
    }
  }
}

TEST_P(MoveDiskTest, StoresABlockAnewWhoseBaseIsEqual) {
  const ByteVector content = Content();
  FakeSource source({{0, kSize, true, true}}, content);
  RecordingChannel channel;
  const Bytes block = BlockOf(content, 3);
  channel.bases[3].assign(block.begin(), block.end());
  ASSERT_TRUE(Move(&source, ChangedBlockMap::All(), &channel).ok());
  EXPECT_TRUE(channel.patched.empty());
  EXPECT_EQ(channel.blocks.size(), kBlocks);
}

}  // namespace
}  // namespace blockferry
