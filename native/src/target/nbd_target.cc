#include "target/nbd_target.h"

#include <cerrno>
#include <utility>

#include "target/target_failure.h"

namespace blockferry {
namespace {

// Each keeps what it writes, at most the 512 KiB that a restore writes at once.
constexpr size_t kWriteCountMax = 16;
constexpr int64_t kStallTimeoutMs = 60'000;

}  // namespace

int NbdTarget::Slot::Done(void* data, int* error) {
  auto* slot = static_cast<Slot*>(data);
  slot->busy = false;
  slot->error = *error;
  return 1;
}

NbdTarget::NbdTarget(std::unique_ptr<NbdConnection> connection)
    : connection_(std::move(connection)), slots_(kWriteCountMax) {}

// Closing the connection ends all writes under way; only then may their bytes go.
NbdTarget::~NbdTarget() { connection_.reset(); }

Result<std::unique_ptr<NbdTarget>> NbdTarget::OpenImage(const std::string& uri,
                                                        const Cancel* cancel) {
  NbdOptions options;
  options.uri = uri;
  options.stall_timeout_ms = kStallTimeoutMs;
  options.unreachable_reason = reason::kTargetWriteFailed;
  options.stalled_reason = reason::kTargetWriteFailed;
  ASSIGN_OR_RETURN(std::unique_ptr<NbdConnection> connection, NbdConnection::Open(options, cancel));
  if (nbd_is_read_only(connection->handle()) != 0) {
    return TargetFailure("open for writing", uri, EROFS);
  }
  return std::unique_ptr<NbdTarget>(new NbdTarget(std::move(connection)));
}

Result<std::unique_ptr<DiskTarget>> NbdTarget::Open(const std::string& uri, uint64_t size_bytes,
                                                    const Cancel* cancel) {
  ASSIGN_OR_RETURN(std::unique_ptr<NbdTarget> target, OpenImage(uri, cancel));
  if (target->size_bytes() < size_bytes) {
    const std::string found = std::to_string(target->size_bytes());
    const std::string needed = std::to_string(size_bytes);
    return Status(reason::kTargetWriteFailed,
                  "open " + uri + ": it has " + found + " bytes, the disk has " + needed +
                      "; export an image of at least that size",
                  {{"target", uri}, {"found_bytes", found}, {"needed_bytes", needed}});
  }
  return std::unique_ptr<DiskTarget>(std::move(target));
}

NbdTarget::Slot* NbdTarget::FreeSlot() {
  for (Slot& slot : slots_) {
    if (!slot.busy) return &slot;
  }
  return nullptr;
}

Status NbdTarget::CheckSlots() {
  for (const Slot& slot : slots_) {
    if (slot.busy || slot.error == 0) continue;
    return TargetFailure("write at byte " + std::to_string(slot.offset_bytes) + " of",
                         connection_->uri(), slot.error);
  }
  return Status();
}

// REQUIRES: mutex_ is held.
Result<NbdTarget::Slot*> NbdTarget::TakeSlot(uint64_t offset_bytes) {
  RETURN_IF_ERROR(connection_->WaitUntil("write to", [this] { return FreeSlot() != nullptr; }));
  RETURN_IF_ERROR(CheckSlots());
  Slot* slot = FreeSlot();
  slot->offset_bytes = offset_bytes;
  slot->busy = true;
  return slot;
}

// After libnbd was asked to begin; a negative cookie is a refusal. REQUIRES: mutex_ is held.
Status NbdTarget::Begun(Slot* slot, int64_t cookie) {
  if (cookie >= 0) return connection_->Nudge("write to");
  slot->busy = false;
  const int error = nbd_get_errno();
  return TargetFailure("write at byte " + std::to_string(slot->offset_bytes) + " of",
                       connection_->uri(), error == 0 ? EIO : error);
}

Status NbdTarget::Write(uint64_t offset_bytes, Bytes bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(Slot * slot, TakeSlot(offset_bytes));
  slot->bytes.assign(bytes.begin(), bytes.end());
  const nbd_completion_callback done{Slot::Done, slot, nullptr};
  return Begun(slot, nbd_aio_pwrite(connection_->handle(), slot->bytes.data(), slot->bytes.size(),
                                    offset_bytes, done, 0));
}

Status NbdTarget::Zero(uint64_t offset_bytes, uint64_t size_bytes) {
  if (nbd_can_zero(connection_->handle()) != 1) {
    return Write(offset_bytes, ByteVector(static_cast<size_t>(size_bytes)));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(Slot * slot, TakeSlot(offset_bytes));
  const nbd_completion_callback done{Slot::Done, slot, nullptr};
  return Begun(slot, nbd_aio_zero(connection_->handle(), size_bytes, offset_bytes, done, 0));
}

Status NbdTarget::Finish() {
  std::lock_guard<std::mutex> lock(mutex_);
  RETURN_IF_ERROR(connection_->WaitUntil(
      "write to", [this] { return nbd_aio_in_flight(connection_->handle()) <= 0; }));
  RETURN_IF_ERROR(CheckSlots());
  if (nbd_can_flush(connection_->handle()) != 1) return Status();
  Slot flush;
  flush.busy = true;
  const nbd_completion_callback done{Slot::Done, &slots_.front(), nullptr};
  slots_.front() = std::move(flush);
  if (nbd_aio_flush(connection_->handle(), done, 0) < 0) {
    return TargetFailure("flush", connection_->uri(), nbd_get_errno());
  }
  RETURN_IF_ERROR(connection_->WaitUntil("flush", [this] { return !slots_.front().busy; }));
  if (slots_.front().error != 0) {
    return TargetFailure("flush", connection_->uri(), slots_.front().error);
  }
  return Status();
}

}  // namespace blockferry
