#include "stream/move_disk.h"

#include <algorithm>

#include "repository/block_geometry.h"
#include "stream/read_ahead.h"

namespace blockferry {
namespace {

Status MoveBlock(const Line& line, uint64_t index, Bytes plain) {
  // A block of zeroes is a hole, also when the source had it allocated.
  if (IsZero(plain)) return Status();
  const Digest name = line.naming->ChunkName(plain);
  ASSIGN_OR_RETURN(const bool wanted, line.channel->Offer(index, name));
  if (!wanted) return Status();
  return line.channel->Send(
      {index, name, static_cast<uint32_t>(plain.size()), line.encoder->Encode(plain)});
}

Status MoveData(const Line& line, const BlockRun& run, Bytes bytes) {
  for (uint64_t index = run.first_block; index < run.end_block; ++index) {
    const Bytes plain = bytes.first(std::min<size_t>(kBlockSize, bytes.size()));
    bytes = bytes.subspan(plain.size());
    RETURN_IF_ERROR(MoveBlock(line, index, plain));
    // Only now: a checkpoint that is taken within the block begins with it again.
    line.channel->CountRead(plain.size());
  }
  return Status();
}

Status MoveRun(const Line& line, const ReadRun& read) {
  switch (read.run.kind) {
    case BlockRun::Kind::kHole:
      return Status();
    case BlockRun::Kind::kKept:
      return line.channel->Keep(read.run.first_block, read.run.end_block);
    case BlockRun::Kind::kData:
      return MoveData(line, read.run, read.bytes);
  }
  return Status();
}

}  // namespace

Result<std::optional<Digest>> MoveDisk(const Line& line) {
  ReadAhead ahead(line.source, line.plan);
  while (true) {
    RETURN_IF_ERROR(line.cancel->Check());
    ASSIGN_OR_RETURN(const std::optional<ReadRun> read, ahead.Next());
    if (!read.has_value()) break;
    RETURN_IF_ERROR(MoveRun(line, *read));
    const uint64_t end_bytes = read->run.end_block * kBlockSize;
    line.progress->position_bytes.Set(std::min(end_bytes, line.source->size_bytes()));
  }
  return line.channel->Seal();
}

}  // namespace blockferry
