// The mark beside a manifest that says since when the backup is removed, or held.
//
// Magic, version u32, zero u32, repository time u64 at which it was set, and the BLAKE3 of all
// that.
#ifndef BLOCKFERRY_REPOSITORY_REMOVAL_MARK_H_
#define BLOCKFERRY_REPOSITORY_REMOVAL_MARK_H_

#include <cstdint>
#include <string>

#include "core/file.h"

namespace blockferry {

ByteVector EncodeMark(uint64_t time);

// REPOSITORY_DAMAGED when it cannot be told.
Result<uint64_t> ReadMarkTime(FileSystem& files, const std::string& path);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_REMOVAL_MARK_H_
