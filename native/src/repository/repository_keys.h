// What opens an encrypted repository, and the slots that it is wrapped in.
//
// The keys never change; each slot holds them encrypted under one secret, so that secrets come and
// go without rewriting data. See docs/repository-format.md for the bytes of a slot.
#ifndef BLOCKFERRY_REPOSITORY_REPOSITORY_KEYS_H_
#define BLOCKFERRY_REPOSITORY_REPOSITORY_KEYS_H_

#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "repository/manifest.h"

namespace blockferry {

struct RepositoryKeys {
  Digest naming_key{};
  Digest record_key{};  // See record_seal.h.
};

struct Secret {
  enum class Kind : uint32_t { kPassphrase = 1, kKey = 2 };
  Kind kind = Kind::kPassphrase;
  ByteVector bytes;  // UTF-8, or 32 random bytes.
};

struct KeySlot {
  std::string slot_id;  // 16 hex digits.
  Secret::Kind kind = Secret::Kind::kPassphrase;
  std::string label;  // In clear, for people.
};

// The slots of the repository in `folder`. A file that is none of them is passed over: a creation
// that was cut off may have left one of another repository.
Result<std::vector<KeySlot>> ListKeySlots(FileSystem& files, const std::string& folder,
                                          const RepositoryId& repository);

// Whether these are the bytes that were written.
bool IsWholeKeySlot(Bytes bytes);

// Tries the slots of the secret's kind. KEY_WRONG when none opens.
Result<RepositoryKeys> UnlockKeys(FileSystem& files, const std::string& folder,
                                  const RepositoryId& repository, const Secret& secret);

// Durable when it returns. ARGUMENT_INVALID for a secret or a label that cannot be.
Result<KeySlot> AddKeySlot(FileSystem& files, const std::string& folder,
                           const RepositoryId& repository, const RepositoryKeys& keys,
                           const Secret& added, const std::string& label);

// KEY_SLOT_LAST for the only one, NOT_FOUND for one that is not there. Of several that remove the
// last ones at once none succeeds.
Status RemoveKeySlot(FileSystem& files, const std::string& folder, const RepositoryId& repository,
                     const std::string& slot_id);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_REPOSITORY_KEYS_H_
