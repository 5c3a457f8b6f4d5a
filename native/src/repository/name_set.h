// A set of names of chunks and map nodes, 16 bytes for each, in one allocation that never grows.
//
// Names are keyed digests, so half of one tells them apart. Each name can have flags. Used by one
// thread.
#ifndef BLOCKFERRY_REPOSITORY_NAME_SET_H_
#define BLOCKFERRY_REPOSITORY_NAME_SET_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/blake3.h"

namespace blockferry {

class NameSet {
 public:
  // Bytes that a set for that many names takes.
  static constexpr size_t MemoryFor(size_t count) { return (count + count / 2 + 1) * sizeof(Slot); }

  explicit NameSet(size_t capacity) : slots_(capacity + capacity / 2 + 1), capacity_(capacity) {}

  // False when it is there already. REQUIRES: !full().
  bool Insert(const Digest& name);
  bool Has(const Digest& name) const { return slots_[Find(name)] != Slot(); }
  enum Flag : uint64_t { kFirst = 2, kSecond = 4 };
  // Does nothing for a name that is not there.
  void SetFlag(const Digest& name, Flag flag);
  bool HasFlag(const Digest& name, Flag flag) const { return (slots_[Find(name)].low & flag) != 0; }

  size_t size() const { return size_; }
  bool full() const { return size_ >= capacity_; }

 private:
  struct Slot {
    uint64_t low = 0;  // Bit 0 is set in every slot that is taken, then come the flags.
    uint64_t high = 0;
    bool IsOf(const Slot& name) const {
      return (low & ~uint64_t{kFirst | kSecond}) == name.low && high == name.high;
    }
    bool operator==(const Slot&) const = default;
  };
  static Slot SlotOf(const Digest& name);
  // Where the name is, or the free slot where it would go.
  size_t Find(const Digest& name) const;

  std::vector<Slot> slots_;
  size_t capacity_;
  size_t size_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_NAME_SET_H_
