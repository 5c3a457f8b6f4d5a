// The reasons of proto/blockferry/error/v1/error.proto, as the native side uses them: the enum's
// names without their prefix. reason_test.cc holds this list a part of the proto's.
#ifndef BLOCKFERRY_CORE_REASON_H_
#define BLOCKFERRY_CORE_REASON_H_

#include <string_view>

namespace blockferry::reason {

inline constexpr std::string_view kArgumentInvalid = "ARGUMENT_INVALID";
inline constexpr std::string_view kNotFound = "NOT_FOUND";
inline constexpr std::string_view kAlreadyExists = "ALREADY_EXISTS";
inline constexpr std::string_view kInternal = "INTERNAL";
inline constexpr std::string_view kCancelled = "CANCELLED";
inline constexpr std::string_view kDeadlineExceeded = "DEADLINE_EXCEEDED";
inline constexpr std::string_view kServiceUnreachable = "SERVICE_UNREACHABLE";
inline constexpr std::string_view kDatabaseUnreachable = "DATABASE_UNREACHABLE";
inline constexpr std::string_view kHostUnreachable = "HOST_UNREACHABLE";
inline constexpr std::string_view kHostDenied = "HOST_DENIED";
inline constexpr std::string_view kVmNotFound = "VM_NOT_FOUND";
inline constexpr std::string_view kVmAmbiguous = "VM_AMBIGUOUS";
inline constexpr std::string_view kVmBusy = "VM_BUSY";
inline constexpr std::string_view kVmWithoutUuid = "VM_WITHOUT_UUID";
inline constexpr std::string_view kVmUuidDuplicate = "VM_UUID_DUPLICATE";
inline constexpr std::string_view kVmPoweredOff = "VM_POWERED_OFF";
inline constexpr std::string_view kVmStateUnsuitable = "VM_STATE_UNSUITABLE";
inline constexpr std::string_view kVmWithoutDisks = "VM_WITHOUT_DISKS";
inline constexpr std::string_view kDiskNotFound = "DISK_NOT_FOUND";
inline constexpr std::string_view kDiskRemoved = "DISK_REMOVED";
inline constexpr std::string_view kDiskFormatUnsupported = "DISK_FORMAT_UNSUPPORTED";
inline constexpr std::string_view kDiskSizeMismatch = "DISK_SIZE_MISMATCH";
inline constexpr std::string_view kDiskIdDuplicate = "DISK_ID_DUPLICATE";
inline constexpr std::string_view kImageMissing = "IMAGE_MISSING";
inline constexpr std::string_view kImageInUse = "IMAGE_IN_USE";
inline constexpr std::string_view kImageChanged = "IMAGE_CHANGED";
inline constexpr std::string_view kImageDamaged = "IMAGE_DAMAGED";
inline constexpr std::string_view kImageFormatWrong = "IMAGE_FORMAT_WRONG";
inline constexpr std::string_view kQuiesceFailed = "QUIESCE_FAILED";
inline constexpr std::string_view kAgentUnreachable = "AGENT_UNREACHABLE";
inline constexpr std::string_view kPointNotFound = "POINT_NOT_FOUND";
inline constexpr std::string_view kPointLost = "POINT_LOST";
inline constexpr std::string_view kPointBroken = "POINT_BROKEN";
inline constexpr std::string_view kFleeceFull = "FLEECE_FULL";
inline constexpr std::string_view kGuardFailed = "GUARD_FAILED";
inline constexpr std::string_view kBaseMissing = "BASE_MISSING";
inline constexpr std::string_view kRepositoryMissing = "REPOSITORY_MISSING";
inline constexpr std::string_view kRepositoryExists = "REPOSITORY_EXISTS";
inline constexpr std::string_view kRepositoryReadOnly = "REPOSITORY_READ_ONLY";
inline constexpr std::string_view kRepositoryDenied = "REPOSITORY_DENIED";
inline constexpr std::string_view kRepositoryFull = "REPOSITORY_FULL";
inline constexpr std::string_view kRepositoryTooNew = "REPOSITORY_TOO_NEW";
inline constexpr std::string_view kRepositoryDamaged = "REPOSITORY_DAMAGED";
inline constexpr std::string_view kRepositoryUnreachable = "REPOSITORY_UNREACHABLE";
inline constexpr std::string_view kKeyMissing = "KEY_MISSING";
inline constexpr std::string_view kKeyWrong = "KEY_WRONG";
inline constexpr std::string_view kKeySlotLast = "KEY_SLOT_LAST";
inline constexpr std::string_view kBackupNotFound = "BACKUP_NOT_FOUND";
inline constexpr std::string_view kBackupHeld = "BACKUP_HELD";
inline constexpr std::string_view kBackupLocked = "BACKUP_LOCKED";
inline constexpr std::string_view kBlockCorrupt = "BLOCK_CORRUPT";
inline constexpr std::string_view kChunkMissing = "CHUNK_MISSING";
inline constexpr std::string_view kManifestCorrupt = "MANIFEST_CORRUPT";
inline constexpr std::string_view kCollectionBlocked = "COLLECTION_BLOCKED";
inline constexpr std::string_view kRunFenced = "RUN_FENCED";
inline constexpr std::string_view kRunNotCancellable = "RUN_NOT_CANCELLABLE";
inline constexpr std::string_view kSessionNotFound = "SESSION_NOT_FOUND";
inline constexpr std::string_view kSourceUnreachable = "SOURCE_UNREACHABLE";
inline constexpr std::string_view kSourceReadFailed = "SOURCE_READ_FAILED";
inline constexpr std::string_view kSourceStalled = "SOURCE_STALLED";
inline constexpr std::string_view kChangedBlocksInvalid = "CHANGED_BLOCKS_INVALID";
inline constexpr std::string_view kTargetExists = "TARGET_EXISTS";
inline constexpr std::string_view kTargetFull = "TARGET_FULL";
inline constexpr std::string_view kTargetDenied = "TARGET_DENIED";
inline constexpr std::string_view kTargetWriteFailed = "TARGET_WRITE_FAILED";
inline constexpr std::string_view kTargetInUse = "TARGET_IN_USE";
inline constexpr std::string_view kToolMissing = "TOOL_MISSING";
inline constexpr std::string_view kAddressRefused = "ADDRESS_REFUSED";
inline constexpr std::string_view kDatabaseIncompatible = "DATABASE_INCOMPATIBLE";
inline constexpr std::string_view kDatabaseBusy = "DATABASE_BUSY";

}  // namespace blockferry::reason

#endif  // BLOCKFERRY_CORE_REASON_H_
