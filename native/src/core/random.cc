// The only function of this file, so that the tests can link one of their own in its place, which
// follows from a seed.
#include <sys/random.h>

#include <cerrno>
#include <cstdlib>

#include "core/bytes.h"

namespace blockferry {

void FillRandom(MutableBytes bytes) {
  while (!bytes.empty()) {
    ssize_t size = getrandom(bytes.data(), bytes.size(), 0);
    if (size < 0) {
      // Only a kernel without the call fails otherwise, and then no key may be made.
      if (errno != EINTR) std::abort();
      continue;
    }
    bytes = bytes.subspan(static_cast<size_t>(size));
  }
}

}  // namespace blockferry
