// Writes a disk to an NBD export, many writes in flight on one connection, flushed at the
// end. The export stays as far as it was written when a restore fails: it belongs to
// whoever made it.
#ifndef BLOCKFERRY_TARGET_NBD_TARGET_H_
#define BLOCKFERRY_TARGET_NBD_TARGET_H_

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/nbd_connection.h"
#include "target/disk_image.h"

namespace blockferry {

class NbdTarget final : public DiskImage {
 public:
  // An export that reads as zeroes, of at least the disk's size.
  static Result<std::unique_ptr<DiskTarget>> Open(const std::string& uri, uint64_t size_bytes,
                                                  const Cancel* cancel);
  // An export with bytes of its own.
  static Result<std::unique_ptr<NbdTarget>> OpenImage(const std::string& uri, const Cancel* cancel);
  ~NbdTarget() override;
  NbdTarget(const NbdTarget&) = delete;
  NbdTarget& operator=(const NbdTarget&) = delete;

  Status Write(uint64_t offset_bytes, Bytes bytes) override;
  Status Zero(uint64_t offset_bytes, uint64_t size_bytes) override;
  Status Finish() override;

  uint64_t size_bytes() const { return connection_->size_bytes(); }

 private:
  // One write in flight, with its own copy of the bytes.
  struct Slot {
    ByteVector bytes;
    uint64_t offset_bytes = 0;
    bool busy = false;
    int error = 0;

    static int Done(void* data, int* error);
  };

  explicit NbdTarget(std::unique_ptr<NbdConnection> connection);
  Slot* FreeSlot();
  Status CheckSlots();
  Result<Slot*> TakeSlot(uint64_t offset_bytes);
  Status Begun(Slot* slot, int64_t cookie);

  // A libnbd handle is fed by one thread at a time.
  std::mutex mutex_;
  std::unique_ptr<NbdConnection> connection_;
  std::vector<Slot> slots_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_NBD_TARGET_H_
