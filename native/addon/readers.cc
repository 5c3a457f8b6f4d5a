#include "readers.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>

namespace blockferry {
namespace {

// For what is received at once; an answer of the kernel fills at most 32 KiB.
constexpr size_t kBufferSize = 64 * 1024;
// More than a socket's buffers hold at the usual limits; a client that keeps reading ends it.
constexpr size_t kDrainSizeMax = 256 * 1024 * 1024;

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

Status DiagFailure(const std::string& path) {
  return Status(reason::kHostDenied,
                "list the connections to " + path + ": " + std::strerror(errno) +
                    "; the kernel's unix socket diagnostics (unix_diag) must be usable",
                {{"path", path}});
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
  if (send(netlink, &message, sizeof(message), 0) < 0) return DiagFailure(path);
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
  if (netlink.get() < 0) return DiagFailure(path);
  RETURN_IF_ERROR(AskForSockets(netlink.get(), path));
  std::set<uint32_t> inodes;
  std::vector<char> answers(kBufferSize);
  for (;;) {
    const ssize_t size = recv(netlink.get(), answers.data(), answers.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return DiagFailure(path);
    auto rest = static_cast<unsigned>(size);
    const auto* answer = reinterpret_cast<const nlmsghdr*>(answers.data());
    for (; NLMSG_OK(answer, rest); answer = NLMSG_NEXT(answer, rest)) {
      if (answer->nlmsg_type == NLMSG_DONE) return inodes;
      if (answer->nlmsg_type == NLMSG_ERROR) {
        const auto* error = static_cast<const nlmsgerr*>(NLMSG_DATA(answer));
        errno = answer->nlmsg_len < NLMSG_LENGTH(sizeof(*error)) ? EIO : -error->error;
        return DiagFailure(path);
      }
      if (const uint32_t peer = PeerOf(answer, path); peer != 0) inodes.insert(peer);
    }
  }
}

std::string ShutDown(int fd) {
  if (shutdown(fd, SHUT_RDWR) != 0 && errno != ENOTCONN) return std::strerror(errno);
  std::vector<char> bytes(kBufferSize);
  for (size_t drained = 0; drained < kDrainSizeMax;) {
    const ssize_t size = recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    drained += static_cast<size_t>(size);
  }
  return {};
}

// Cuts descriptor `fd` of the process if it still is the socket with that inode.
std::string CutDescriptor(int64_t pid, int fd, uint32_t inode) {
  const Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)));
  if (process.get() < 0) return std::strerror(errno);
  const Descriptor copy(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
  if (copy.get() < 0) return std::strerror(errno);
  struct stat found {};
  if (fstat(copy.get(), &found) != 0) return std::strerror(errno);
  if (!S_ISSOCK(found.st_mode) || found.st_ino != inode) return "it was closed meanwhile";
  return ShutDown(copy.get());
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
  ASSIGN_OR_RETURN(std::set<uint32_t> inodes, ClientInodes(socket_path));
  std::vector<Reader> readers;
  if (inodes.empty()) return readers;
  std::set<uint32_t> unseen = inodes;
  ForNumbersIn("/proc", [&](int64_t pid) {
    const std::string folder = "/proc/" + std::to_string(pid) + "/fd";
    ForNumbersIn(folder, [&](int64_t fd) {
      const uint32_t inode = SocketInode(folder + "/" + std::to_string(fd));
      if (inode == 0 || inodes.count(inode) == 0) return;
      unseen.erase(inode);
      readers.push_back({pid, CutDescriptor(pid, static_cast<int>(fd), inode)});
    });
  });
  for (size_t i = 0; i < unseen.size(); ++i) {
    readers.push_back({0, "no process that this user may look at holds it"});
  }
  return readers;
}

}  // namespace blockferry
