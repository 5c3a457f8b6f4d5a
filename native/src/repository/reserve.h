// The file `reserve`: room that nobody uses, so that backups can be removed and a repository
// collected on a file system that is full. It is given up for that, and made anew by a collection
// that ends well.
#ifndef BLOCKFERRY_REPOSITORY_RESERVE_H_
#define BLOCKFERRY_REPOSITORY_RESERVE_H_

#include <cstdint>
#include <string>

#include "core/file.h"

namespace blockferry {

inline constexpr uint64_t kReserveSize = uint64_t{8} << 20;

// Nothing is done when there is one, or when `size` is 0. REPOSITORY_FULL leaves none behind.
Status MakeReserve(FileSystem& files, const std::string& folder, uint64_t size);

// False when there was none to give up.
bool ReleaseReserve(FileSystem& files, const std::string& folder);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_RESERVE_H_
