// The fifth stage of a restore: where the bytes of one disk are written.
#ifndef BLOCKFERRY_TARGET_DISK_TARGET_H_
#define BLOCKFERRY_TARGET_DISK_TARGET_H_

#include <cstdint>

#include "core/bytes.h"
#include "core/status.h"

namespace blockferry {

class DiskTarget {
 public:
  // What was not finished is as if it had never been, where the target can do that.
  virtual ~DiskTarget() = default;

  // Writes whole blocks side by side, in any order, from any thread. Bytes that are never
  // written read as zeroes.
  virtual Status Write(uint64_t offset_bytes, Bytes bytes) = 0;

  // Makes everything durable. REQUIRES: no Write under way.
  virtual Status Finish() = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_DISK_TARGET_H_
