// The file `repository`: who a repository is.
#ifndef BLOCKFERRY_REPOSITORY_REPOSITORY_IDENTITY_H_
#define BLOCKFERRY_REPOSITORY_REPOSITORY_IDENTITY_H_

#include <string>

#include "repository/manifest.h"

namespace blockferry {

struct RepositoryIdentity {
  RepositoryId id{};
  Digest naming_key{};  // Zeroes when the repository is encrypted: its key slots hold it then.
  bool is_encrypted = false;
};

ByteVector EncodeIdentity(const RepositoryIdentity& identity);

// REPOSITORY_TOO_NEW or REPOSITORY_DAMAGED; `path` is for their messages.
Result<RepositoryIdentity> DecodeIdentity(Bytes bytes, const std::string& path);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_REPOSITORY_IDENTITY_H_
