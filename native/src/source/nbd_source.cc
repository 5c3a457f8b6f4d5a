#include "source/nbd_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "source/extent_answer.h"

namespace blockferry {
namespace {

constexpr char kAllocationContext[] = "base:allocation";

// One request asks for the state of this much; the protocol's limit is 4 GiB - 1.
constexpr uint64_t kStatusSizeBytesMax = uint64_t{2} << 30;

}  // namespace

struct NbdSource::StatusRequest {
  ContextAnswer allocation;
  ContextAnswer bitmap;
  std::string bitmap_name;
  bool done = false;
  int error = 0;

  static int Take(void* data, const char* context, uint64_t, uint32_t* entries, size_t count,
                  int*) {
    auto* request = static_cast<StatusRequest*>(data);
    ContextAnswer* answer = nullptr;
    if (std::strcmp(context, kAllocationContext) == 0) answer = &request->allocation;
    if (request->bitmap_name == context) answer = &request->bitmap;
    if (answer == nullptr) return 0;
    answer->answered = true;
    answer->entries.assign(entries, entries + count);
    return 0;
  }

  static int Finish(void* data, int* error) {
    auto* request = static_cast<StatusRequest*>(data);
    request->done = true;
    request->error = *error;
    return 1;
  }
};

int NbdSource::Read::Finish(void* data, int* error) {
  auto* read = static_cast<Read*>(data);
  read->done = true;
  read->error = *error;
  return 1;
}

NbdSource::NbdSource(std::unique_ptr<NbdConnection> connection, std::string bitmap)
    : connection_(std::move(connection)),
      bitmap_(std::move(bitmap)),
      knows_allocation_(connection_->HasContext(kAllocationContext)) {}

// Closing the connection ends everything under way; only then may what it fills go.
NbdSource::~NbdSource() { connection_.reset(); }

Result<std::unique_ptr<BlockSource>> NbdSource::Open(const NbdOptions& options,
                                                     const std::string& bitmap, uint64_t size_bytes,
                                                     const Cancel* cancel) {
  NbdOptions asked = options;
  asked.contexts = {kAllocationContext};
  if (!bitmap.empty()) asked.contexts.push_back(bitmap);
  ASSIGN_OR_RETURN(std::unique_ptr<NbdConnection> connection, NbdConnection::Open(asked, cancel));
  if (connection->size_bytes() != size_bytes) {
    const std::string found = std::to_string(connection->size_bytes());
    const std::string promised = std::to_string(size_bytes);
    return Status(reason::kDiskSizeMismatch,
                  "open " + options.uri + ": it has " + found + " bytes, " + promised +
                      " were promised; take a new point",
                  {{"uri", options.uri}, {"found_bytes", found}, {"promised_bytes", promised}});
  }
  if (!bitmap.empty() && !connection->HasContext(bitmap)) {
    return Status(reason::kChangedBlocksInvalid,
                  "open " + options.uri + ": the server does not offer the metadata context " +
                      bitmap + "; export the bitmap or back up without it",
                  {{"uri", options.uri}, {"context", bitmap}});
  }
  return std::unique_ptr<BlockSource>(new NbdSource(std::move(connection), bitmap));
}

Status NbdSource::ReadFailure(const char* what, uint64_t offset_bytes,
                              const std::string& cause) const {
  const std::string offset = std::to_string(offset_bytes);
  return Status(reason::kSourceReadFailed,
                std::string(what) + " " + connection_->uri() + " at byte " + offset + ": " + cause +
                    "; check the storage behind it and run it again",
                {{"uri", connection_->uri()}, {"offset_bytes", offset}});
}

Result<Extent> NbdSource::ExtentAt(uint64_t offset_bytes) {
  const bool inside = !extents_.empty() && offset_bytes >= extents_.front().offset_bytes &&
                      offset_bytes < extents_.back().end_bytes();
  if (!inside) RETURN_IF_ERROR(FetchExtents(offset_bytes));
  if (extent_index_ >= extents_.size() || offset_bytes < extents_[extent_index_].offset_bytes) {
    extent_index_ = 0;
  }
  while (offset_bytes >= extents_[extent_index_].end_bytes()) ++extent_index_;
  Extent extent = extents_[extent_index_];
  extent.size_bytes = extent.end_bytes() - offset_bytes;
  extent.offset_bytes = offset_bytes;
  return extent;
}

Status NbdSource::FetchExtents(uint64_t offset_bytes) {
  extents_.clear();
  extent_index_ = 0;
  const uint64_t bytes_left = size_bytes() - offset_bytes;
  if (!knows_allocation_ && bitmap_.empty()) {
    extents_.push_back({offset_bytes, bytes_left, true, true});
    return Status();
  }
  request_ = std::make_unique<StatusRequest>();
  StatusRequest& request = *request_;
  request.bitmap_name = bitmap_;
  const nbd_extent_callback take{StatusRequest::Take, &request, nullptr};
  const nbd_completion_callback finish{StatusRequest::Finish, &request, nullptr};
  const uint64_t asked_bytes = std::min(bytes_left, kStatusSizeBytesMax);
  if (nbd_aio_block_status(connection_->handle(), asked_bytes, offset_bytes, take, finish, 0) < 0) {
    if (connection_->lost()) return connection_->Lost("ask for extents of", nbd_get_error());
    return ReadFailure("ask for extents of", offset_bytes, nbd_get_error());
  }
  RETURN_IF_ERROR(
      connection_->WaitUntil("ask for extents of", [&request] { return request.done; }));
  if (request.error != 0) {
    return ReadFailure("ask for extents of", offset_bytes, std::strerror(request.error));
  }
  const Status merged =
      MergeAnswers(offset_bytes, size_bytes(), knows_allocation_ ? &request.allocation : nullptr,
                   bitmap_.empty() ? nullptr : &request.bitmap, &extents_);
  if (!merged.ok()) {
    extents_.clear();
    return ReadFailure("ask for extents of", offset_bytes, merged.message());
  }
  return Status();
}

Status NbdSource::Submit(uint64_t offset_bytes, std::span<std::byte> buffer) {
  Read& read = reads_[(first_read_ + read_count_) % kReadCountMax];
  read = {offset_bytes, false, 0};
  const nbd_completion_callback finish{Read::Finish, &read, nullptr};
  if (nbd_aio_pread(connection_->handle(), buffer.data(), buffer.size(), offset_bytes, finish, 0) <
      0) {
    if (connection_->lost()) return connection_->Lost("read", nbd_get_error());
    return ReadFailure("read", offset_bytes, nbd_get_error());
  }
  ++read_count_;
  return Status();
}

Status NbdSource::Await() {
  Read& read = reads_[first_read_];
  RETURN_IF_ERROR(connection_->WaitUntil("read", [&read] { return read.done; }));
  first_read_ = (first_read_ + 1) % kReadCountMax;
  --read_count_;
  if (read.error == 0) return Status();
  if (connection_->lost() || read.error == ENOTCONN || read.error == ESHUTDOWN) {
    return connection_->Lost("read", std::strerror(read.error));
  }
  return ReadFailure("read", read.offset_bytes, std::strerror(read.error));
}

}  // namespace blockferry
