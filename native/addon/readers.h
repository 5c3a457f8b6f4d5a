// Ends the connections of a server's clients from outside, when both ends hang.
#ifndef BLOCKFERRY_ADDON_READERS_H_
#define BLOCKFERRY_ADDON_READERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"

namespace blockferry {

// A client's end of one connection.
struct Reader {
  // The process that holds it; 0 when it is one whose files this user may not see.
  int64_t pid = 0;
  // Why it could not be cut; empty when it was.
  std::string failure;
};

// Shuts down every connection that was made to the unix socket at `socket_path`, at the client's
// end, and throws away what the client has not read. A writer that waits for room in a connection
// that is shut down wakes only when the other end is read or closed (QEMU 7.2 as NBD server), and
// a client that is stopped does neither. Works through pidfd_getfd, so this user needs the right
// to trace the client. ARGUMENT_INVALID, HOST_DENIED, HOST_UNREACHABLE. REQUIRES: nobody wants what
// the clients read: one that runs on meanwhile may miss bytes in the middle before it learns of the
// end.
Result<std::vector<Reader>> CutReaders(const std::string& socket_path);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_READERS_H_
