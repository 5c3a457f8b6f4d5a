#include "repository/name_set.h"

#include <cassert>

#include "core/endian.h"

namespace blockferry {

NameSet::Slot NameSet::SlotOf(const Digest& name) {
  return {(LoadLe<uint64_t>(name.data()) & ~uint64_t{7}) | 1, LoadLe<uint64_t>(name.data() + 8)};
}

size_t NameSet::Find(const Digest& name) const {
  const Slot wanted = SlotOf(name);
  size_t at =
      static_cast<size_t>((static_cast<unsigned __int128>(wanted.high) * slots_.size()) >> 64);
  while (slots_[at] != Slot() && !slots_[at].IsOf(wanted))
    at = at + 1 == slots_.size() ? 0 : at + 1;
  return at;
}

bool NameSet::Insert(const Digest& name) {
  assert(!full());
  Slot& slot = slots_[Find(name)];
  if (slot != Slot()) return false;
  slot = SlotOf(name);
  ++size_;
  return true;
}

void NameSet::SetFlag(const Digest& name, Flag flag) {
  Slot& slot = slots_[Find(name)];
  if (slot != Slot()) slot.low |= flag;
}

}  // namespace blockferry
