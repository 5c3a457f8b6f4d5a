// The line backwards: reads the chunks that a disk's map names, on several threads and
// out of order, and writes them to a target.
//
// Nothing reaches the target before it was compared with its digest. The nodes of the map
// are compared on the way, so after success the root is the one that was asked for.
#ifndef BLOCKFERRY_STREAM_RESTORE_DISK_H_
#define BLOCKFERRY_STREAM_RESTORE_DISK_H_

#include <cstdint>
#include <optional>

#include "core/cancel.h"
#include "core/progress.h"
#include "repository/chunk_reader.h"
#include "target/disk_target.h"

namespace blockferry {

// A disk of a backup; the root is absent for a disk without data.
struct StoredDisk {
  std::optional<Digest> root;
  uint64_t size_bytes = 0;
};

// Sets allocated_bytes to what the map names. Reads all nodes of the map, 2 KiB for each 4 MiB of
// data, so that a damaged map is found before anything is written.
Status CountAllocated(ChunkReader* chunks, const StoredDisk& disk, const Cancel* cancel,
                      Progress* progress);

// `target` is not finished by this function.
Status RestoreDisk(ChunkReader* chunks, const StoredDisk& disk, DiskTarget* target,
                   const Cancel* cancel, Progress* progress);

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_RESTORE_DISK_H_
