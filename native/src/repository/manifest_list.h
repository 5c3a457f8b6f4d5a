// The manifests of one VM, found by listing their folder.
#ifndef BLOCKFERRY_REPOSITORY_MANIFEST_LIST_H_
#define BLOCKFERRY_REPOSITORY_MANIFEST_LIST_H_

#include <string>
#include <vector>

#include "core/file.h"
#include "repository/manifest.h"

namespace blockferry {

// Appends them in ascending sequence; a folder that does not exist holds none. What cannot be
// trusted is listed with the reason, a listing that fails is an error.
Status ListManifestFolder(FileSystem& files, const std::string& folder,
                          const std::string& vm_pseudonym, const RepositoryId& repository,
                          const Naming* naming, const Digest* record_key,
                          std::vector<ListedManifest>* listed);

// The largest sequence of the folder's manifests and of the marks of those that are gone: a name is
// not given again while there is a mark of it. 0 when there is none.
Result<uint64_t> LastSequence(FileSystem& files, const std::string& folder);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MANIFEST_LIST_H_
