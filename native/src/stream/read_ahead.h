// Reads the runs of a block plan ahead of the line, so that the source always has
// requests to work on, and hands them out in order.
#ifndef BLOCKFERRY_STREAM_READ_AHEAD_H_
#define BLOCKFERRY_STREAM_READ_AHEAD_H_

#include <array>
#include <deque>
#include <optional>

#include "core/bytes.h"
#include "diff/block_plan.h"
#include "source/block_source.h"

namespace blockferry {

// A run, and its bytes when it has data.
struct ReadRun {
  BlockRun run;
  Bytes bytes;
};

class ReadAhead {
 public:
  // `source` and `plan` outlive the object, and no read may be under way when the source
  // is used otherwise.
  ReadAhead(BlockSource* source, BlockPlan* plan);

  // The next run, absent at the end of the disk. Its bytes are valid until the next call.
  Result<std::optional<ReadRun>> Next();

 private:
  struct Pending {
    BlockRun run;
    MutableBytes buffer;
  };

  Status Fill();
  Status Submit(const BlockRun& run);

  BlockSource* source_;
  BlockPlan* plan_;
  bool plan_ended_ = false;
  // What is left of a long run of data: one read takes kReadSizeBytesMax at most.
  std::optional<BlockRun> rest_;
  std::deque<Pending> pending_;
  size_t read_count_ = 0;
  // One buffer more than reads, for the run that is handed out.
  ByteVector buffers_;
  size_t next_buffer_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_READ_AHEAD_H_
