// Verifies every stored byte of a repository. Needs no key: each kind of file has digests of what
// is stored.
#ifndef BLOCKFERRY_REPOSITORY_STORED_CHECK_H_
#define BLOCKFERRY_REPOSITORY_STORED_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/file.h"
#include "core/progress.h"
#include "core/rate_limit.h"

namespace blockferry {

struct StoredDamage {
  std::string path;  // In the repository's folder.
  std::string what;
  // Where in the file, in bytes; the whole file when it cannot be told.
  uint64_t offset = 0;
  uint64_t size = 0;
};

struct StoredReport {
  uint64_t file_count = 0;
  uint64_t checked = 0;  // Bytes.
  std::vector<StoredDamage> damages;
};

// Looks at the file `repository`, key slots, packs, manifests, checkpoints, lists of collectors,
// the time, and the index, which is only a cache: damage there costs time. Files that vanish
// meanwhile are passed over. A file that cannot be read is damage; a folder that cannot be listed
// fails. Damaged records are marked as such, for who stores them anew. Progress: position_bytes of
// what was checked, block_count of damages.
Result<StoredReport> CheckStored(FileSystem& files, const std::string& folder, const Cancel* cancel,
                                 Progress* progress, RateLimit* rate_limit);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_STORED_CHECK_H_
