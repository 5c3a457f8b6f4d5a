// The bytes of the file `repository`, and the names of what lies beside it.
#ifndef BLOCKFERRY_REPOSITORY_REPOSITORY_FORMAT_H_
#define BLOCKFERRY_REPOSITORY_REPOSITORY_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace blockferry::repository_format {

// Magic, version u32, block size u32, repository id, naming key (zeroes when encrypted), flags u32,
// 28 zero bytes, and the BLAKE3 of all that.
inline constexpr char kMagic[] = "BFERRY\r\n";
inline constexpr size_t kMagicSize = 8;
static_assert(sizeof(kMagic) == kMagicSize + 1);
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kFlagEncrypted = 1;
inline constexpr size_t kReservedSize = 28;
inline constexpr size_t kDigestedSize = kMagicSize + 4 + 4 + 16 + 32 + 4 + kReservedSize;
inline constexpr size_t kFileSize = kDigestedSize + 32;
static_assert(kFileSize == 128);

inline constexpr char kRepositoryFile[] = "repository";
inline constexpr char kNewRepositoryFile[] = "repository.new";
inline constexpr char kPacksFolder[] = "packs";
inline constexpr char kManifestsFolder[] = "manifests";
inline constexpr char kSessionsFolder[] = "sessions";
inline constexpr char kIncarnationsFolder[] = "incarnations";
inline constexpr char kCollectorsFolder[] = "collectors";
inline constexpr char kTimeFile[] = "time";
inline constexpr char kReserveFile[] = "reserve";

inline constexpr char kPackSuffix[] = ".pack";
inline constexpr char kNewPackSuffix[] = ".pack-new";
inline constexpr char kDeadSuffix[] = ".dead";
inline constexpr char kMovedSuffix[] = ".moved";
inline constexpr char kDamagedSuffix[] = ".damaged";
inline constexpr char kManifestSuffix[] = ".manifest";
inline constexpr char kRemovedSuffix[] = ".removed";
inline constexpr char kExpiringSuffix[] = ".expiring";
inline constexpr char kDroppedSuffix[] = ".dropped";
inline constexpr char kHeldSuffix[] = ".held";
inline constexpr char kSessionsSuffix[] = ".sessions";
inline constexpr char kNewManifestFile[] = "manifest-new";
inline constexpr char kFencedSuffix[] = ".fenced";
inline constexpr char kCheckpointSuffix[] = ".checkpoint";
inline constexpr char kNewCheckpointSuffix[] = ".checkpoint-new";
inline constexpr size_t kSequenceDigits = 8;
inline constexpr size_t kIncarnationDigits = 10;

}  // namespace blockferry::repository_format

#endif  // BLOCKFERRY_REPOSITORY_REPOSITORY_FORMAT_H_
