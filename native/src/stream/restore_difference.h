// The line backwards onto an image that is there already: reads the image, names its blocks as the
// repository does, compares them with the disk's map, and writes only the pages that differ.
//
// What differs is found by reading, never from what anybody remembers of the image. Nothing is
// written that was not compared with its digest. After success the image holds the disk.
#ifndef BLOCKFERRY_STREAM_RESTORE_DIFFERENCE_H_
#define BLOCKFERRY_STREAM_RESTORE_DIFFERENCE_H_

#include <functional>
#include <memory>

#include "core/cancel.h"
#include "core/progress.h"
#include "repository/chunk_reader.h"
#include "repository/naming.h"
#include "source/block_source.h"
#include "stream/restore_disk.h"
#include "target/disk_image.h"

namespace blockferry {

// Opens one more reader of the image. Each is used by one thread, all of them beside the writes.
using OpenImageSource = std::function<Result<std::unique_ptr<BlockSource>>()>;

// Works on several threads, 1 MiB of the image in memory for each. `image` is not finished by
// this function. The image is as large as the disk, or larger by less than a sector, which then
// reads as zeroes afterwards; else DISK_SIZE_MISMATCH.
Status RestoreDifference(ChunkReader* chunks, const Naming& naming, const StoredDisk& disk,
                         const OpenImageSource& open_source, DiskImage* image, const Cancel* cancel,
                         Progress* progress);

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_RESTORE_DIFFERENCE_H_
