// The line of one disk on all cores: one thread reads, some name and encode, one writes.
//
//     source ─ reader ─→ ring ─→ workers: diff, compress ─→ ring ─→ writer: stream, target
//
// The writer takes the runs in the order of the disk, so the target sees the same calls as from
// MoveDisk, and the bytes it writes are the same.
//
// Invariant: the reader waits for the others only while no read is under way. QEMU waits for the
// answers to be taken when a guest is reset or stopped, so a target that hangs must not keep any.
#ifndef BLOCKFERRY_STREAM_PIPELINE_H_
#define BLOCKFERRY_STREAM_PIPELINE_H_

#include <optional>

#include "stream/move_disk.h"

namespace blockferry {

struct PipelineOptions {
  // 0: as many as the machine has cores, four at most.
  unsigned worker_count = 0;
};

// As MoveDisk. The calling thread is the writer; the plan and the reads of the source belong to the
// reader, and Channel::FindLacking is called by the workers.
Result<std::optional<Digest>> MoveDiskInParallel(const Line& line,
                                                 const PipelineOptions& options = {});

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_PIPELINE_H_
