// Merges index files into one, in one pass and with one group of each in memory.
#ifndef BLOCKFERRY_REPOSITORY_INDEX_MERGE_H_
#define BLOCKFERRY_REPOSITORY_INDEX_MERGE_H_

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "repository/index_file.h"
#include "repository/index_writer.h"

namespace blockferry {

using IndexFiles = std::vector<std::shared_ptr<const IndexFile>>;

// Hands the entries of all files to the writer, which is left to be finished. `packs` are the
// numbers of the packs that the new file covers, ascending; entries of others are left out, and
// those that several files have come once. CANCELLED when `keep_on`, which is asked at each group,
// says no.
Status MergeIndexFiles(const IndexFiles& files, std::span<const uint32_t> packs,
                       const std::function<bool()>& keep_on, IndexWriter* writer);

// Where a pack is among those of a file, kNoPosition when it is not.
inline constexpr uint32_t kNoPosition = ~uint32_t{0};
uint32_t PositionOf(std::span<const uint32_t> packs, uint32_t number);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_INDEX_MERGE_H_
