#include "peer.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace blockferry {
namespace {

Status PeerFailure(const std::string& path, int error) {
  const bool denied = error == EACCES || error == EPERM;
  return Status(denied ? reason::kHostDenied : reason::kHostUnreachable,
                "connect to " + path + ": " + std::strerror(error) +
                    (denied ? "; let this user use the socket" : "; is the program running?"),
                {{"path", path}});
}

}  // namespace

Result<Peer> PeerOf(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.empty() || socket_path.size() >= sizeof(address.sun_path)) {
    return Status(reason::kArgumentInvalid,
                  "socketPath: a unix socket path has 1 to 107 bytes, this one has " +
                      std::to_string(socket_path.size()),
                  {{"field", "socketPath"}});
  }
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return PeerFailure(socket_path, errno);
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  int error = 0;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    error = errno;
  }
  close(fd);
  if (error != 0) return PeerFailure(socket_path, error);
  return Peer{credentials.pid, credentials.uid, credentials.gid};
}

}  // namespace blockferry
