// Reads a disk from an NBD server: the extents of base:allocation and, when asked for,
// of one dirty-bitmap context, and up to kReadCountMax reads in flight on one connection.
//
// Extents are fetched piecewise and only the current piece is kept, so that memory does
// not grow with the disk. Everything the server answers is checked before it is used.
#ifndef BLOCKFERRY_SOURCE_NBD_SOURCE_H_
#define BLOCKFERRY_SOURCE_NBD_SOURCE_H_

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/nbd_connection.h"
#include "source/block_source.h"

namespace blockferry {

class NbdSource final : public BlockSource {
 public:
  // `bitmap` names the context that marks changed blocks; empty without one. A context
  // that the server does not offer is CHANGED_BLOCKS_INVALID, another size than
  // `size_bytes` is DISK_SIZE_MISMATCH.
  static Result<std::unique_ptr<BlockSource>> Open(const NbdOptions& options,
                                                   const std::string& bitmap, uint64_t size_bytes,
                                                   const Cancel* cancel);
  ~NbdSource() override;
  NbdSource(const NbdSource&) = delete;
  NbdSource& operator=(const NbdSource&) = delete;

  uint64_t size_bytes() const override { return connection_->size_bytes(); }
  Result<Extent> ExtentAt(uint64_t offset_bytes) override;
  Status Submit(uint64_t offset_bytes, std::span<std::byte> buffer) override;
  Status Await() override;

 private:
  struct Read {
    uint64_t offset_bytes = 0;
    bool done = false;
    int error = 0;

    static int Finish(void* data, int* error);
  };

  struct StatusRequest;

  NbdSource(std::unique_ptr<NbdConnection> connection, std::string bitmap);
  Status FetchExtents(uint64_t offset_bytes);
  Status ReadFailure(const char* what, uint64_t offset_bytes, const std::string& cause) const;

  std::unique_ptr<NbdConnection> connection_;
  std::string bitmap_;
  bool knows_allocation_;

  // Lives as long as the connection: a late answer may still reach it.
  std::unique_ptr<StatusRequest> request_;

  // The current piece of the extents, ascending and without gaps.
  std::vector<Extent> extents_;
  size_t extent_index_ = 0;

  // A ring: reads are answered in any order and handed out in the order of Submit.
  std::array<Read, kReadCountMax> reads_;
  size_t first_read_ = 0;
  size_t read_count_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_SOURCE_NBD_SOURCE_H_
