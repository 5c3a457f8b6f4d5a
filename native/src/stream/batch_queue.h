// Hands the blocks of one disk to several threads, and knows how far all of them are.
//
// Lock order: this queue's mutex is a leaf, nothing is called while it is held.
#ifndef BLOCKFERRY_STREAM_BATCH_QUEUE_H_
#define BLOCKFERRY_STREAM_BATCH_QUEUE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "core/progress.h"
#include "core/status.h"
#include "repository/map_reader.h"

namespace blockferry {

struct Batch {
  std::vector<MapEntry> entries;
  bool done = false;
};

class BatchQueue {
 public:
  explicit BatchQueue(size_t open_count_max) : open_count_max_(open_count_max) {}

  // Waits while too many batches are open. False once the work has failed.
  // REQUIRES: the batch has entries, in ascending order over all calls.
  bool Push(std::vector<MapEntry> entries);
  // No more batches come.
  void Close();

  // The next batch, or null when there is none left or the work has failed.
  Batch* Take();
  // The batch is gone afterwards. Sets `position_bytes` to the beginning of the last block of
  // the batches that are done without a gap; under the lock, so that it never goes back.
  void Finish(Batch* batch, Counter* position_bytes);

  // Ends the work; the first failure is kept.
  void Fail(const Status& failure);
  Status failure();

 private:
  const size_t open_count_max_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Open batches in the order of the disk; those before taken_count_ are with a thread.
  std::deque<std::unique_ptr<Batch>> open_;
  size_t taken_count_ = 0;
  bool closed_ = false;
  Status failure_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_BATCH_QUEUE_H_
