// Writes the rest of packs that are mostly dead anew, byte for byte: no key is needed for that.
#ifndef BLOCKFERRY_REPOSITORY_PACK_COPIER_H_
#define BLOCKFERRY_REPOSITORY_PACK_COPIER_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "core/rate_limit.h"
#include "repository/mark.h"

namespace blockferry {

class Repository;

struct CopiedPacks {
  std::set<PackId> packs;  // Whose live records lie in others, durably.
  uint64_t size = 0;       // Bytes of the records that were written for that.
};

class PackCopier {
 public:
  // New packs are first written in `folder`, that of the writer of that name.
  PackCopier(Repository* repository, std::string writer, std::string folder, RateLimit* rate_limit,
             Counter* written);

  // The live records of `sparse`, but for those of which a pack of `staying` has a good copy. Packs
  // with damaged records are passed over; nothing is copied when there is no room for it. NOT_FOUND
  // when a pack or the folder is gone.
  Result<CopiedPacks> Copy(const std::vector<const MarkedPack*>& sparse,
                           const std::set<PackId>& staying, const Cancel& cancel);

 private:
  Result<CopiedPacks> CopyAll(const std::vector<const MarkedPack*>& sparse,
                              const std::set<PackId>& staying, const Cancel& cancel);
  // Bytes of the records that were copied.
  Result<uint64_t> CopyLive(const MarkedPack& pack, const std::set<PackId>& staying,
                            const Cancel& cancel);
  bool HasGoodCopy(const PackEntry& entry, const std::set<PackId>& staying);
  Status Append(const PackEntry& entry, Bytes record, const Digest* base);
  Status Seal();

  Repository& repository_;
  FileSystem& files_;
  const std::string writer_;
  const std::string folder_;
  RateLimit& rate_limit_;
  Counter& written_;
  std::unique_ptr<PackWriter> copy_;  // That is being filled.
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_COPIER_H_
