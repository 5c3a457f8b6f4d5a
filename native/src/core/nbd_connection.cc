#include "core/nbd_connection.h"

#include <cerrno>
#include <chrono>

namespace blockferry {
namespace {

constexpr int64_t kPollMs = 100;

std::string LastError() {
  const char* text = nbd_get_error();
  return text == nullptr ? "unknown error" : text;
}

}  // namespace

NbdConnection::NbdConnection(nbd_handle* handle, const NbdOptions& options, const Cancel* cancel)
    : handle_(handle), options_(options), cancel_(cancel) {}

NbdConnection::~NbdConnection() { nbd_close(handle_); }

int64_t NbdConnection::NowMs() {
  using std::chrono::duration_cast;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return duration_cast<std::chrono::milliseconds>(now).count();
}

Result<std::unique_ptr<NbdConnection>> NbdConnection::Open(const NbdOptions& options,
                                                           const Cancel* cancel) {
  nbd_handle* handle = nbd_create();
  if (handle == nullptr) return Status(reason::kInternal, "create an NBD handle: " + LastError());
  std::unique_ptr<NbdConnection> connection(new NbdConnection(handle, options, cancel));
  RETURN_IF_ERROR(connection->Connect());
  return connection;
}

Status NbdConnection::Connect() {
  for (const std::string& context : options_.contexts) {
    if (nbd_add_meta_context(handle_, context.c_str()) < 0) return Lost("connect", LastError());
  }
  if (nbd_aio_connect_uri(handle_, options_.uri.c_str()) < 0) return Lost("connect", LastError());
  RETURN_IF_ERROR(WaitUntil("connect", [this] {
    return nbd_aio_is_connecting(handle_) <= 0 && nbd_aio_is_negotiating(handle_) <= 0;
  }));
  if (lost()) return Lost("connect", LastError());
  const int64_t size = nbd_get_size(handle_);
  if (size < 0) return Lost("connect", LastError());
  size_bytes_ = static_cast<uint64_t>(size);
  return Status();
}

bool NbdConnection::HasContext(const std::string& name) const {
  return nbd_can_meta_context(handle_, name.c_str()) == 1;
}

bool NbdConnection::lost() const {
  return nbd_aio_is_dead(handle_) != 0 || nbd_aio_is_closed(handle_) != 0;
}

Status NbdConnection::Lost(const char* what, const std::string& cause) const {
  return Status(options_.unreachable_reason,
                std::string(what) + " " + options_.uri + ": " + cause +
                    "; check that the server still runs and that this user may connect",
                {{"uri", options_.uri}});
}

Status NbdConnection::Nudge(const char* what) {
  if (nbd_poll(handle_, 0) < 0 && lost()) return Lost(what, LastError());
  return Status();
}

Status NbdConnection::Step(const char* what, int64_t* heard_ms) {
  RETURN_IF_ERROR(cancel_->Check());
  const int answer = nbd_poll(handle_, kPollMs);
  const std::string cause = answer < 0 ? LastError() : "the connection was closed";
  // A lost connection has answered all commands with an error, so `done` may be true now.
  if (answer < 0 && nbd_get_errno() != EINTR && !lost()) return Lost(what, cause);
  if (lost()) return Lost(what, cause);
  const int64_t now_ms = NowMs();
  if (answer > 0) *heard_ms = now_ms;
  if (now_ms - *heard_ms < options_.stall_timeout_ms) return Status();
  const std::string timeout = std::to_string(options_.stall_timeout_ms);
  return Status(options_.stalled_reason,
                std::string(what) + " " + options_.uri + ": no answer for " + timeout +
                    " ms; check the server and the storage behind it",
                {{"uri", options_.uri}, {"stall_timeout_ms", timeout}});
}

}  // namespace blockferry
