// The fifth stage of a restore in place: an image that exists, with bytes of its own, and is made
// to hold other ones.
#ifndef BLOCKFERRY_TARGET_DISK_IMAGE_H_
#define BLOCKFERRY_TARGET_DISK_IMAGE_H_

#include <cstdint>

#include "target/disk_target.h"

namespace blockferry {

// Unlike a DiskTarget that was made for a restore, what is never written stays as it was, and
// what was written stays also without Finish().
class DiskImage : public DiskTarget {
 public:
  // Makes the bytes read as zeroes and gives their room back where the image can. In any order,
  // from any thread; never for bytes that a Write or another Zero under way touches.
  virtual Status Zero(uint64_t offset_bytes, uint64_t size_bytes) = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_DISK_IMAGE_H_
