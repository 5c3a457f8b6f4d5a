// Writes to a file that is restored to.
#ifndef BLOCKFERRY_TARGET_WRITE_AT_H_
#define BLOCKFERRY_TARGET_WRITE_AT_H_

#include <cstdint>
#include <string>

#include "core/bytes.h"
#include "core/status.h"

namespace blockferry {

// Writes all of `bytes`; `path` names the file in a failure. From any thread.
Status WriteAt(int fd, const std::string& path, uint64_t offset_bytes, Bytes bytes);

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_WRITE_AT_H_
