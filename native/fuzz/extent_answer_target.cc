#include <cassert>

#include "core/endian.h"
#include "fuzz_target.h"
#include "source/extent_answer.h"

namespace blockferry::fuzz {
namespace {

constexpr uint8_t kHasAllocation = 1;
constexpr uint8_t kHasBitmap = 2;
constexpr uint8_t kAllocationAnswered = 4;
constexpr uint8_t kBitmapAnswered = 8;
constexpr size_t kFixedSize = 1 + 8 + 8 + 2;

// First byte: which contexts were asked for and which were answered; then offset u64, size u64, the
// number of entries of the first answer u16, and entries u32 of both.
void Run(Bytes input) {
  if (input.size() < kFixedSize) return;
  const uint8_t flags = std::to_integer<uint8_t>(input[0]);
  const uint64_t offset = LoadLe<uint64_t>(input.data() + 1);
  const uint64_t size = LoadLe<uint64_t>(input.data() + 9);
  if (offset >= size) return;
  const size_t first_count = LoadLe<uint16_t>(input.data() + 17);
  ContextAnswer allocation{(flags & kAllocationAnswered) != 0, {}};
  ContextAnswer bitmap{(flags & kBitmapAnswered) != 0, {}};
  for (size_t at = kFixedSize; at + 4 <= input.size(); at += 4) {
    const bool is_first = allocation.entries.size() < first_count;
    (is_first ? allocation : bitmap).entries.push_back(LoadLe<uint32_t>(input.data() + at));
  }
  std::vector<Extent> extents;
  const Status merged = MergeAnswers(offset, size, (flags & kHasAllocation) ? &allocation : nullptr,
                                     (flags & kHasBitmap) ? &bitmap : nullptr, &extents);
  if (!merged.ok()) return;
  // Without gaps from the offset on, none empty, and none past the end.
  assert(!extents.empty());
  uint64_t end = offset;
  for (const Extent& extent : extents) {
    assert(extent.offset_bytes == end && extent.size_bytes > 0);
    end = extent.end_bytes();
    assert(end <= size);
  }
}

ByteVector Input(uint8_t flags, std::initializer_list<uint32_t> first,
                 std::initializer_list<uint32_t> second) {
  ByteVector bytes;
  ByteWriter out(&bytes);
  out.Put(flags);
  out.Put(uint64_t{65536});
  out.Put(uint64_t{1} << 30);
  out.Put(static_cast<uint16_t>(first.size()));
  for (const uint32_t value : first) out.Put(value);
  for (const uint32_t value : second) out.Put(value);
  return bytes;
}

std::vector<ByteVector> Seeds() {
  return {Input(kHasAllocation | kAllocationAnswered, {65536, 0, 131072, 3}, {}),
          Input(kHasBitmap | kBitmapAnswered, {}, {65536, 1, 65536, 0}),
          Input(kHasAllocation | kHasBitmap | kAllocationAnswered | kBitmapAnswered,
                {4096, 2, 196608, 0}, {65536, 1, 1048576, 0})};
}

}  // namespace

const Target kExtentAnswer{"extent_answer", Run, Seeds};

}  // namespace blockferry::fuzz
