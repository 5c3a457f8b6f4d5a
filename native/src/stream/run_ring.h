// Carries the runs of a disk from the reader over the workers to the writer, in the order of the
// disk, in a fixed number of slots that are used again and again.
//
//     reader: Claim → (bytes arrive) → Publish     workers: TakeRead → Finish
//     writer: TakeNext → Release                   any: Fail
//
// Lock order: this ring's mutex is a leaf, nothing is called while it is held.
#ifndef BLOCKFERRY_STREAM_RUN_RING_H_
#define BLOCKFERRY_STREAM_RUN_RING_H_

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/bytes.h"
#include "stream/frame.h"
#include "stream/move_disk.h"

namespace blockferry {

// What the workers found out about one block.
struct BlockFate {
  enum class Kind { kZero, kNamed, kFrame };
  Kind kind = Kind::kZero;
  Frame frame;  // Only its name is set for kNamed.
};

class RunSlot {
 public:
  BlockRun run;
  // Of a run of data: its bytes, and what became of its blocks.
  MutableBytes bytes;
  std::array<BlockFate, kReadBlockCountMax> fates;

  // Room for the bytes of the longest run, and for the frames of its blocks.
  MutableBytes PlainBuffer();
  MutableBytes FrameBuffer(uint64_t position);

 private:
  friend class RunRing;
  enum class State { kClaimed, kRead, kTaken, kFinished };

  State state_ = State::kClaimed;
  // Made when the slot is used first, not cleared: a small disk touches little memory.
  std::unique_ptr<std::byte[]> buffer_;
};

class RunRing {
 public:
  explicit RunRing(size_t slot_count);

  // The next slot, which is the reader's until it is published. Waits for the writer to release
  // one; null at once when `wait` is false and there is none, and null when the work has failed.
  RunSlot* Claim(bool wait);
  // The oldest claimed slot: its bytes are there, or its run has none.
  void Publish();
  // No more runs come.
  void Close();

  // The next run of data for a worker; null when there is none left or the work has failed.
  RunSlot* TakeRead();
  void Finish(RunSlot* slot);

  // The oldest run, when it is finished; null at the end or when the work has failed.
  RunSlot* TakeNext();
  void Release();

  // Ends the work; the first failure is kept.
  void Fail(const Status& failure);
  bool failed();
  Status failure();

 private:
  // Runs count from 0; run i is in slot i modulo the number of slots.
  RunSlot& At(uint64_t number) { return slots_[number % slots_.size()]; }

  std::vector<RunSlot> slots_;
  std::mutex mutex_;
  std::condition_variable released_;   // For the reader.
  std::condition_variable published_;  // For the workers.
  std::condition_variable finished_;   // For the writer.
  // Invariant: released_count_ <= taken_count_ <= published_count_ <= claimed_count_.
  uint64_t claimed_count_ = 0;
  uint64_t published_count_ = 0;
  uint64_t taken_count_ = 0;
  uint64_t released_count_ = 0;
  bool closed_ = false;
  bool failed_ = false;
  Status failure_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_RUN_RING_H_
