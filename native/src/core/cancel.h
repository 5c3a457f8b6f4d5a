// Cancels work on other threads: one thread asks, every thread of the work looks.
#ifndef BLOCKFERRY_CORE_CANCEL_H_
#define BLOCKFERRY_CORE_CANCEL_H_

#include <atomic>

#include "core/status.h"

namespace blockferry {

class Cancel {
 public:
  void Request() { requested_.store(true, std::memory_order_relaxed); }
  bool requested() const { return requested_.load(std::memory_order_relaxed); }

  // Fails with CANCELLED once cancelling was requested. Cheap enough for every block.
  Status Check() const {
    if (requested()) return Status(reason::kCancelled, "the work was cancelled");
    return Status();
  }

 private:
  std::atomic<bool> requested_{false};
};

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_CANCEL_H_
