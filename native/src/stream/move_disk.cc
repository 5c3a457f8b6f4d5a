#include "stream/move_disk.h"

#include <algorithm>

namespace blockferry {
namespace {

// The buffers of the one thread.
struct Buffers {
  ByteVector plain = ByteVector(kReadSizeBytesMax);
  ByteVector frame = ByteVector(FrameSizeMax(kBlockSize));
};

Status MoveBlock(const Line& line, uint64_t index, Bytes plain, FrameMaker* maker,
                 MutableBytes buffer) {
  // A block of zeroes is a hole, also when the source had it allocated.
  if (IsZero(plain)) return Status();
  const Digest name = line.naming->ChunkName(plain);
  ASSIGN_OR_RETURN(const bool wanted, line.channel->Offer(index, name));
  if (!wanted) return Status();
  return SendFrame(line, maker->Make(index, name, plain, buffer), plain, maker, buffer);
}

Status MoveData(const Line& line, const BlockRun& run, FrameMaker* maker, Buffers* buffers) {
  const MutableBytes bytes = MutableBytes(buffers->plain).first(line.SizeOf(run));
  RETURN_IF_ERROR(line.source->Submit(line.OffsetOf(run.first_block), bytes));
  RETURN_IF_ERROR(line.source->Await());
  for (uint64_t index = run.first_block; index < run.end_block; ++index) {
    const Bytes plain = BlockIn(bytes, index - run.first_block);
    RETURN_IF_ERROR(MoveBlock(line, index, plain, maker, buffers->frame));
    // Only now: a checkpoint that is taken within the block begins with it again.
    line.channel->CountRead(plain.size());
  }
  return Status();
}

}  // namespace

uint64_t Line::EndOf(const BlockRun& run) const {
  return std::min(run.end_block * kBlockSize, source->size_bytes());
}

Bytes BlockIn(Bytes run, uint64_t position) {
  const Bytes rest = run.subspan(position * kBlockSize);
  return rest.first(std::min<size_t>(kBlockSize, rest.size()));
}

Status SendFrame(const Line& line, const Frame& frame, Bytes plain, FrameMaker* maker,
                 MutableBytes buffer) {
  ASSIGN_OR_RETURN(const bool taken, line.channel->Send(frame));
  if (taken) return Status();
  const Digest name = frame.record.name;
  return ToStatus(line.channel->Send(maker->MakeWhole(frame.block_index, name, plain, buffer)));
}

Result<std::optional<Digest>> MoveDisk(const Line& line) {
  FrameMaker maker(line.compression, line.writer_key, line.channel);
  Buffers buffers;
  while (true) {
    RETURN_IF_ERROR(line.cancel->Check());
    ASSIGN_OR_RETURN(const std::optional<BlockRun> run, line.plan->Next(kReadBlockCountMax));
    if (!run.has_value()) break;
    switch (run->kind) {
      case BlockRun::Kind::kHole:
        break;
      case BlockRun::Kind::kKept:
        RETURN_IF_ERROR(line.channel->Keep(run->first_block, run->end_block));
        break;
      case BlockRun::Kind::kData:
        RETURN_IF_ERROR(MoveData(line, *run, &maker, &buffers));
        break;
    }
    line.progress->position_bytes.Set(line.EndOf(*run));
  }
  return line.channel->Seal();
}

}  // namespace blockferry
