// Who is at the other end of a unix socket?
#ifndef BLOCKFERRY_ADDON_PEER_H_
#define BLOCKFERRY_ADDON_PEER_H_

#include <cstdint>
#include <string>

#include "core/status.h"

namespace blockferry {

struct Peer {
  int64_t pid = 0;
  int64_t uid = 0;
  int64_t gid = 0;
};

// Connects and asks the kernel. The peer need not accept: a monitor that serves one
// client at a time does not notice.
Result<Peer> PeerOf(const std::string& socket_path);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_PEER_H_
