// Which sessions were open when a batch of tombstones was published. Until the last of them has
// ended, one may refer to a pack of the batch.
//
// Magic, version u32, count u32, the sessions as texts, and the BLAKE3 of all that.
#ifndef BLOCKFERRY_REPOSITORY_WAITING_LIST_H_
#define BLOCKFERRY_REPOSITORY_WAITING_LIST_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace blockferry {

ByteVector EncodeWaitingList(std::span<const std::string> sessions);

// Without value when there is no whole one.
std::optional<std::vector<std::string>> ReadWaitingList(FileSystem& files, const std::string& path);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_WAITING_LIST_H_
