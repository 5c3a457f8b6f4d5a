// Counters of one running move, restore or verification. The work adds, any thread reads.
//
// Each counter is exact by itself; two of them read one after the other may be a block
// apart. The meaning of each is the border's: native/lib/native.ts.
#ifndef BLOCKFERRY_CORE_PROGRESS_H_
#define BLOCKFERRY_CORE_PROGRESS_H_

#include <atomic>
#include <cstdint>

namespace blockferry {

class Counter {
 public:
  void Add(uint64_t amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  void Set(uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct Progress {
  Counter size_bytes;
  Counter position_bytes;
  Counter allocated_bytes;
  Counter changed_bytes;
  Counter read_bytes;
  Counter stored_bytes;
  Counter block_count;
  Counter compared_bytes;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_PROGRESS_H_
