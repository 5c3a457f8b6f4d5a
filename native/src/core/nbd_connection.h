// One connection to an NBD server, used by one thread at a time.
//
// Commands are started through handle() and finish inside WaitUntil(), which is the
// only place that waits. It looks at the cancel flag at least every 100 ms and gives up
// when the server has not said anything for the stall timeout.
#ifndef BLOCKFERRY_CORE_NBD_CONNECTION_H_
#define BLOCKFERRY_CORE_NBD_CONNECTION_H_

#include <libnbd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/cancel.h"
#include "core/status.h"

namespace blockferry {

struct NbdOptions {
  std::string uri;
  // Metadata contexts to ask for; the server may offer fewer.
  std::vector<std::string> contexts;
  int64_t stall_timeout_ms = 30'000;
  // Reason when the server cannot be reached, and when it stops answering.
  std::string_view unreachable_reason = reason::kSourceUnreachable;
  std::string_view stalled_reason = reason::kSourceStalled;
};

class NbdConnection {
 public:
  // `cancel` outlives the connection.
  static Result<std::unique_ptr<NbdConnection>> Open(const NbdOptions& options,
                                                     const Cancel* cancel);
  ~NbdConnection();
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  nbd_handle* handle() { return handle_; }
  const std::string& uri() const { return options_.uri; }
  uint64_t size_bytes() const { return size_bytes_; }
  bool HasContext(const std::string& name) const;
  bool lost() const;

  // Runs the connection until `done()` is true. `what` completes "… what of uri".
  template <typename Done>
  Status WaitUntil(const char* what, Done done) {
    const int64_t started_ms = NowMs();
    int64_t heard_ms = started_ms;
    while (!done()) RETURN_IF_ERROR(Step(what, &heard_ms));
    return Status();
  }

  // Lets answers and requests that need no waiting through.
  Status Nudge(const char* what);

  // The failure of a command that the connection refused to start or that got lost.
  Status Lost(const char* what, const std::string& cause) const;

 private:
  NbdConnection(nbd_handle* handle, const NbdOptions& options, const Cancel* cancel);
  Status Connect();
  Status Step(const char* what, int64_t* heard_ms);
  static int64_t NowMs();

  nbd_handle* handle_;
  NbdOptions options_;
  const Cancel* cancel_;
  uint64_t size_bytes_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_NBD_CONNECTION_H_
