#include "repository/disk_writer.h"

#include <algorithm>
#include <cassert>

#include "core/endian.h"
#include "repository/checkpoint_format.h"
#include "repository/pack_writer.h"
#include "repository/repository.h"

namespace blockferry {

using namespace checkpoint_format;

DiskWriter::DiskWriter(Session* session, std::string disk_id, uint64_t size,
                       const std::optional<Digest>& base_root)
    : session_(session),
      disk_id_(std::move(disk_id)),
      size_(size),
      block_count_(BlockCountOf(size)),
      base_root_(base_root),
      map_(this, block_count_) {}

DiskWriter::~DiskWriter() = default;

Status DiskWriter::PutIndex(uint64_t index, const Digest& name, uint64_t ordinal) {
  ordinal_max_ = std::max(ordinal_max_, ordinal);
  ++blocks_since_saved_;
  return map_.Put(index, name);
}

Result<bool> DiskWriter::Put(uint64_t index, const NewRecord& record) {
  assert(index >= map_.next_index() && index < block_count_);
  assert(kWholeOrPatch.Has(record.type) && record.plain_size == BlockSizeAt(size_, index));
  ASSIGN_OR_RETURN(const std::optional<Session::Put> put, session_->PutRecord(record));
  if (!put) return false;
  if (put->stored_size != 0) {
    counters_.stored += put->stored_size;
    ++counters_.block_count;
  }
  // When this block filled a pack, all blocks before it are durable with that: the best moment.
  RETURN_IF_ERROR(SaveCheckpointWhenDue(index));
  RETURN_IF_ERROR(PutIndex(index, record.name, put->ordinal));
  return true;
}

Result<bool> DiskWriter::PutKnown(uint64_t index, const Digest& name) {
  assert(index >= map_.next_index() && index < block_count_);
  ASSIGN_OR_RETURN(std::optional<Session::Put> put, session_->PutPresent(kWholeOrPatch, name));
  if (!put) return false;
  RETURN_IF_ERROR(SaveCheckpointWhenDue(index));
  RETURN_IF_ERROR(PutIndex(index, name, put->ordinal));
  return true;
}

Status DiskWriter::Keep(MapReader& base, uint64_t first, uint64_t end) {
  RETURN_IF_ERROR(SaveCheckpointWhenDue(first));
  return map_.Keep(base, first, end);
}

Result<std::optional<Digest>> DiskWriter::Finish() {
  RETURN_IF_ERROR(
      session_->SaveCheckpoint({disk_id_, EncodeState(block_count_), ordinal_max_}, false));
  return map_.Finish();
}

Result<Digest> DiskWriter::PutNode(Bytes node) {
  NewRecord record;
  record.type = RecordType::kMapNode;
  record.codec = Codec::kStored;
  record.name = session_->repository().naming().NodeName(node);
  record.plain_size = static_cast<uint32_t>(node.size());
  record.stored = node;
  ASSIGN_OR_RETURN(const std::optional<Session::Put> put, session_->PutRecord(record));
  assert(put.has_value());
  counters_.stored += put->stored_size;
  ordinal_max_ = std::max(ordinal_max_, put->ordinal);
  return record.name;
}

Status DiskWriter::SaveCheckpointWhenDue(uint64_t next_index) {
  const uint64_t filled_count = session_->filled_count_;
  // A single new map node must not keep a long stretch of known blocks from counting.
  const bool is_long = blocks_since_saved_ >= kBlockInterval;
  if (filled_count == saved_filled_count_ && !is_long) return {};
  RETURN_IF_ERROR(
      session_->SaveCheckpoint({disk_id_, EncodeState(next_index), ordinal_max_}, is_long));
  saved_filled_count_ = filled_count;
  blocks_since_saved_ = 0;
  return {};
}

ByteVector DiskWriter::EncodeState(uint64_t next_index) const {
  ByteVector bytes;
  ByteWriter out(&bytes);
  out.PutBytes(BytesOf(kMagic));
  out.Put(kVersion);
  out.PutText(session_->options_.point_id);
  out.PutText(session_->repository().naming().Pseudonym(disk_id_));
  out.Put(size_);
  out.Put(static_cast<uint8_t>(base_root_ ? 1 : 0));
  out.PutBytes(base_root_.value_or(Digest{}));
  out.Put(next_index);
  out.Put(counters_.read);
  out.Put(counters_.stored);
  out.Put(counters_.block_count);
  map_.Save(&out);
  return bytes;
}

bool DiskWriter::RestoreState(const CheckpointFile& checkpoint) {
  ByteReader in(checkpoint.state);
  if (TextOf(in.TakeBytes(kMagicSize)) != kMagic || in.Take<uint32_t>() != kVersion ||
      in.TakeText(64) != session_->options_.point_id ||
      in.TakeText(255) != session_->repository().naming().Pseudonym(disk_id_) ||
      in.Take<uint64_t>() != size_) {
    return false;
  }
  bool has_base = in.Take<uint8_t>() != 0;
  Digest base;
  if (!in.TakeInto(base) || has_base != base_root_.has_value()) return false;
  if (has_base && base != *base_root_) return false;
  uint64_t next_index = in.Take<uint64_t>();
  DiskCounters counters;
  counters.read = in.Take<uint64_t>();
  counters.stored = in.Take<uint64_t>();
  counters.block_count = in.Take<uint64_t>();
  if (!in.ok() || next_index > block_count_ || !map_.Restore(&in)) return false;
  if (!in.ok() || map_.next_index() > next_index || !session_->ReferTo(checkpoint.pack_ids)) {
    return false;
  }
  counters_ = counters;
  resumed_at_ = next_index;
  return true;
}

}  // namespace blockferry
