#include "readers.h"

#include <dirent.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string_view>

namespace blockferry {
namespace {

// For what is received at once; an answer of the kernel fills at most 32 KiB.
constexpr size_t kBufferSize = 64 * 1024;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

Status CheckPath(const std::string& path) {
  if (!path.empty() && path.size() < sizeof(sockaddr_un::sun_path)) return Status();
  return Status(reason::kArgumentInvalid,
                "socketPath: a unix socket path has 1 to 107 bytes, this one has " +
                    std::to_string(path.size()),
                {{"field", "socketPath"}, {"value", path}});
}

Status DiagFailure(const std::string& path, int error) {
  const bool denied = error == EACCES || error == EPERM;
  return Status(denied ? reason::kHostDenied : reason::kHostUnreachable,
                "list the connections to " + path + ": " + std::strerror(error) +
                    "; the kernel's diagnostics of unix sockets are needed: modprobe unix_diag",
                {{"path", path}, {"cause", std::strerror(error)}});
}

Status AskForSockets(int netlink, const std::string& path) {
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } message{};
  message.header.nlmsg_len = sizeof(message);
  message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  message.request.sdiag_family = AF_UNIX;
  message.request.udiag_states = ~0u;
  message.request.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER;
  if (send(netlink, &message, sizeof(message), 0) < 0) return DiagFailure(path, errno);
  return Status();
}

// The inode of the other end when the socket bears the server's name, else 0.
uint32_t PeerOf(const nlmsghdr* answer, std::string_view server_path) {
  const auto* found = static_cast<const unix_diag_msg*>(NLMSG_DATA(answer));
  if (answer->nlmsg_len < NLMSG_LENGTH(sizeof(*found))) return 0;
  const auto* attribute =
      reinterpret_cast<const rtattr*>(reinterpret_cast<const char*>(found) + sizeof(*found));
  auto rest = static_cast<unsigned>(answer->nlmsg_len - NLMSG_LENGTH(sizeof(*found)));
  std::string_view name;
  uint32_t peer = 0;
  for (; RTA_OK(attribute, rest); attribute = RTA_NEXT(attribute, rest)) {
    const auto* value = static_cast<const char*>(RTA_DATA(attribute));
    if (attribute->rta_type == UNIX_DIAG_NAME) {
      name = std::string_view(value, strnlen(value, RTA_PAYLOAD(attribute)));
    } else if (attribute->rta_type == UNIX_DIAG_PEER && RTA_PAYLOAD(attribute) == sizeof(peer)) {
      std::memcpy(&peer, value, sizeof(peer));
    }
  }
  return name == server_path ? peer : 0;
}

// Inodes of the clients' ends of all connections to the socket.
Result<std::set<uint32_t>> ClientInodes(const std::string& path) {
  const Descriptor netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (netlink.get() < 0) return DiagFailure(path, errno);
  RETURN_IF_ERROR(AskForSockets(netlink.get(), path));
  std::set<uint32_t> inodes;
  std::vector<char> answers(kBufferSize);
  for (;;) {
    const ssize_t size = recv(netlink.get(), answers.data(), answers.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return DiagFailure(path, errno);
    auto rest = static_cast<unsigned>(size);
    const auto* answer = reinterpret_cast<const nlmsghdr*>(answers.data());
    for (; NLMSG_OK(answer, rest); answer = NLMSG_NEXT(answer, rest)) {
      // Both end the list; a negative number in them is why it is not whole.
      if (answer->nlmsg_type == NLMSG_DONE || answer->nlmsg_type == NLMSG_ERROR) {
        int error = -EIO;
        if (answer->nlmsg_len >= NLMSG_LENGTH(sizeof(error))) {
          std::memcpy(&error, NLMSG_DATA(answer), sizeof(error));
        }
        if (error < 0) return DiagFailure(path, -error);
        return inodes;
      }
      if (const uint32_t peer = PeerOf(answer, path); peer != 0) inodes.insert(peer);
    }
  }
}

// No more than what was under way comes after the shutdown, so this ends.
void Drain(int fd) {
  std::vector<char> bytes(kBufferSize);
  for (;;) {
    const ssize_t size = recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return;
  }
}

enum class Cut { kDone, kGone, kRefused };

// Cuts descriptor `fd` of the process if it still is the socket with that inode. The error number
// of a refusal stays in errno.
Cut CutDescriptor(int64_t pid, int fd, uint32_t inode) {
  const Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)));
  if (process.get() < 0) return errno == ESRCH ? Cut::kGone : Cut::kRefused;
  const Descriptor copy(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
  if (copy.get() < 0) return errno == ESRCH || errno == EBADF ? Cut::kGone : Cut::kRefused;
  struct stat found {};
  if (fstat(copy.get(), &found) != 0 || !S_ISSOCK(found.st_mode) || found.st_ino != inode) {
    return Cut::kGone;
  }
  shutdown(copy.get(), SHUT_RDWR);
  Drain(copy.get());
  return Cut::kDone;
}

template <typename Visit>
void ForNumbersIn(const std::string& folder, Visit visit) {
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return;  // The process has ended, or is somebody else's.
  while (const dirent* entry = readdir(directory)) {
    char* end = nullptr;
    const long number = std::strtol(entry->d_name, &end, 10);  // NOLINT(runtime/int)
    if (*end == '\0' && end != entry->d_name) visit(number);
  }
  closedir(directory);
}

// The inode of the socket that the link stands for, 0 when it is none.
uint32_t SocketInode(const std::string& link) {
  char text[64];
  const ssize_t size = readlink(link.c_str(), text, sizeof(text) - 1);
  if (size <= 0) return 0;
  text[size] = '\0';
  constexpr std::string_view kPrefix = "socket:[";
  if (std::string_view(text).substr(0, kPrefix.size()) != kPrefix) return 0;
  return static_cast<uint32_t>(std::strtoul(text + kPrefix.size(), nullptr, 10));
}

}  // namespace

Result<std::vector<Reader>> CutReaders(const std::string& socket_path) {
  RETURN_IF_ERROR(CheckPath(socket_path));
  ASSIGN_OR_RETURN(std::set<uint32_t> inodes, ClientInodes(socket_path));
  std::map<uint32_t, Reader> readers;
  if (inodes.empty()) return std::vector<Reader>();
  ForNumbersIn("/proc", [&](int64_t pid) {
    const std::string folder = "/proc/" + std::to_string(pid) + "/fd";
    ForNumbersIn(folder, [&](int64_t fd) {
      const uint32_t inode = SocketInode(folder + "/" + std::to_string(fd));
      if (inode == 0 || inodes.count(inode) == 0) return;
      const Cut cut = CutDescriptor(pid, static_cast<int>(fd), inode);
      // Several may hold one end; it is enough to cut it once.
      if (cut == Cut::kDone) readers[inode] = {pid, {}};
      if (cut == Cut::kRefused) readers.insert({inode, {pid, std::strerror(errno)}});
    });
  });
  std::vector<Reader> found;
  for (const auto& [inode, reader] : readers) found.push_back(reader);
  // What nobody was seen to hold may have been closed meanwhile.
  ASSIGN_OR_RETURN(const std::set<uint32_t> left, ClientInodes(socket_path));
  for (const uint32_t inode : inodes) {
    if (readers.count(inode) != 0 || left.count(inode) == 0) continue;
    found.push_back({0, "its files cannot be seen"});
  }
  return found;
}

}  // namespace blockferry
