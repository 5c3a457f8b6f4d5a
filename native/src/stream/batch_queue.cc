#include "stream/batch_queue.h"

#include <utility>

#include "repository/block_geometry.h"

namespace blockferry {

bool BatchQueue::Push(std::vector<MapEntry> entries) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return open_.size() < open_count_max_ || !failure_.ok(); });
  if (!failure_.ok()) return false;
  open_.push_back(std::make_unique<Batch>(Batch{std::move(entries), false}));
  changed_.notify_all();
  return true;
}

void BatchQueue::Close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

Batch* BatchQueue::Take() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return taken_count_ < open_.size() || closed_ || !failure_.ok(); });
  if (!failure_.ok() || taken_count_ == open_.size()) return nullptr;
  return open_[taken_count_++].get();
}

void BatchQueue::Finish(Batch* batch, Counter* position_bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  batch->done = true;
  while (!open_.empty() && open_.front()->done) {
    position_bytes->Set(open_.front()->entries.back().index * kBlockSize);
    open_.pop_front();
    --taken_count_;
  }
  changed_.notify_all();
}

void BatchQueue::Fail(const Status& failure) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_.ok()) failure_ = failure;
  changed_.notify_all();
}

Status BatchQueue::failure() {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

}  // namespace blockferry
