// The manifest of one backup: what the repository itself must know in clear, and a body that only
// the layer above reads. A keyed code authenticates all of it.
#ifndef BLOCKFERRY_REPOSITORY_MANIFEST_H_
#define BLOCKFERRY_REPOSITORY_MANIFEST_H_

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "repository/manifest_mark.h"
#include "repository/naming.h"

namespace blockferry {

using RepositoryId = std::array<std::byte, 16>;

struct ManifestDisk {
  std::string disk_id;
  std::optional<Digest> root;  // Absent for a disk without data.
  uint64_t size = 0;           // Bytes.
};

// A newer token wins over an older one of the same VM.
struct FencingToken {
  uint64_t incarnation = 0;
  uint64_t number = 0;
  auto operator<=>(const FencingToken&) const = default;
};

struct Manifest {
  std::string backup_id;
  std::string vm_pseudonym;
  std::string point_id;
  std::string base_backup_id;  // Empty without base.
  uint64_t sequence = 0;       // Counts the backups of one VM from 1.
  FencingToken token;
  std::vector<ManifestDisk> disks;
  ByteVector body;
  uint64_t lock_until = 0;  // Repository time before which nobody removes the backup.
};

// What listing finds: a manifest, or why the file at `path` cannot be trusted.
struct ListedManifest {
  std::string path;
  // From the file's name, which a damaged file has, too; empty in a name that is none of ours.
  uint64_t sequence = 0;
  std::string backup_id;
  std::vector<ManifestMark> marks;  // Their stem is the path without its suffix.
  bool is_held = false;             // Nobody removes it.
  // Repository time at which it was removed; it can be undeleted until it is dropped.
  std::optional<uint64_t> removed_time;
  bool is_dropped = false;  // On its way out: what it needs may be gone.
  std::optional<Manifest> manifest;
  Status damage;  // Ok exactly when there is a manifest.

  // It was read, and is not what was written: nobody can tell any more what it was. Any other
  // failure may be gone the next time.
  bool is_corrupt() const { return damage.Is(reason::kManifestCorrupt); }
};

// 1 to 64 of A-Z a-z 0-9 . _ - and not starting with a dot: usable as part of a file name.
bool IsFileId(std::string_view id);
// 1 to 255 bytes without control characters.
bool IsDiskId(std::string_view id);
// 32 lower-case hex digits.
bool IsPseudonym(std::string_view pseudonym);

// ARGUMENT_INVALID names the first field that a manifest cannot have.
Status CheckManifest(const Manifest& manifest);

// `record_key` is that of an encrypted repository, else null: disk ids and body are sealed with it.
// REQUIRES: CheckManifest(manifest).ok().
ByteVector EncodeManifest(const Manifest& manifest, const RepositoryId& repository,
                          const Naming& naming, const Digest* record_key);

// MANIFEST_CORRUPT unless these are the bytes that were written; that needs no key.
Status CheckManifestDigest(Bytes bytes);

// MANIFEST_CORRUPT or REPOSITORY_TOO_NEW; never trusts a size before it was checked. Without a
// naming its code is not compared, and of an encrypted one the body is left out and the disks have
// numbers for ids.
Result<Manifest> DecodeManifest(Bytes bytes, const RepositoryId& repository, const Naming* naming,
                                const Digest* record_key);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MANIFEST_H_
