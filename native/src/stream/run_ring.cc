#include "stream/run_ring.h"

#include <cassert>

namespace blockferry {
namespace {

size_t BufferSize() { return kReadSizeBytesMax + kReadBlockCountMax * FrameSizeMax(kBlockSize); }

}  // namespace

MutableBytes RunSlot::PlainBuffer() {
  if (buffer_ == nullptr) buffer_ = std::make_unique_for_overwrite<std::byte[]>(BufferSize());
  return {buffer_.get(), kReadSizeBytesMax};
}

MutableBytes RunSlot::FrameBuffer(uint64_t position) {
  const size_t size = FrameSizeMax(kBlockSize);
  return {buffer_.get() + kReadSizeBytesMax + position * size, size};
}

RunRing::RunRing(size_t slot_count) : slots_(slot_count) {}

RunSlot* RunRing::Claim(bool wait) {
  std::unique_lock lock(mutex_);
  const auto is_free = [this] {
    return failed_ || claimed_count_ - released_count_ < slots_.size();
  };
  if (!wait && !is_free()) return nullptr;
  released_.wait(lock, is_free);
  if (failed_) return nullptr;
  RunSlot& slot = At(claimed_count_++);
  slot.state_ = RunSlot::State::kClaimed;
  return &slot;
}

void RunRing::Publish() {
  std::lock_guard lock(mutex_);
  assert(published_count_ < claimed_count_);
  RunSlot& slot = At(published_count_++);
  const bool has_data = slot.run.kind == BlockRun::Kind::kData;
  slot.state_ = has_data ? RunSlot::State::kRead : RunSlot::State::kFinished;
  if (has_data) {
    published_.notify_one();
  } else {
    finished_.notify_one();
  }
}

void RunRing::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  published_.notify_all();
  finished_.notify_all();
}

RunSlot* RunRing::TakeRead() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (failed_) return nullptr;
    while (taken_count_ < published_count_) {
      RunSlot& slot = At(taken_count_++);
      if (slot.state_ != RunSlot::State::kRead) continue;
      slot.state_ = RunSlot::State::kTaken;
      return &slot;
    }
    if (closed_) return nullptr;
    published_.wait(lock);
  }
}

void RunRing::Finish(RunSlot* slot) {
  std::lock_guard lock(mutex_);
  assert(slot->state_ == RunSlot::State::kTaken);
  slot->state_ = RunSlot::State::kFinished;
  finished_.notify_one();
}

RunSlot* RunRing::TakeNext() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (failed_) return nullptr;
    const bool is_there = released_count_ < published_count_;
    if (is_there && At(released_count_).state_ == RunSlot::State::kFinished) {
      return &At(released_count_);
    }
    if (closed_ && released_count_ == published_count_) return nullptr;
    finished_.wait(lock);
  }
}

void RunRing::Release() {
  std::lock_guard lock(mutex_);
  ++released_count_;
  // A run without data is passed over by the workers only when one looks for work.
  if (taken_count_ < released_count_) taken_count_ = released_count_;
  released_.notify_one();
}

void RunRing::Fail(const Status& failure) {
  std::lock_guard lock(mutex_);
  if (!failed_) failure_ = failure;
  failed_ = true;
  released_.notify_all();
  published_.notify_all();
  finished_.notify_all();
}

bool RunRing::failed() {
  std::lock_guard lock(mutex_);
  return failed_;
}

Status RunRing::failure() {
  std::lock_guard lock(mutex_);
  return failure_;
}

}  // namespace blockferry
