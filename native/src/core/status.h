// How the native side fails: a Status is fine or carries a reason of the error vocabulary, a
// sentence (what was being done, to what, what happened, what to do) and the sentence's variables.
// A Result<T> is a value or a Status that is not ok. Bugs assert, failures are returned.
#ifndef BLOCKFERRY_CORE_STATUS_H_
#define BLOCKFERRY_CORE_STATUS_H_

#include <cassert>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/reason.h"

namespace blockferry {

using Metadata = std::vector<std::pair<std::string, std::string>>;

class [[nodiscard]] Status {
 public:
  // Fine.
  Status() = default;
  Status(std::string_view reason, std::string message, Metadata metadata = {})
      : failure_(std::make_shared<const Failure>(
            Failure{std::string(reason), std::move(message), std::move(metadata)})) {}

  bool ok() const { return failure_ == nullptr; }
  bool Is(std::string_view reason) const { return !ok() && failure_->reason == reason; }

  // REQUIRES: !ok().
  const std::string& reason() const { return failure_->reason; }
  const std::string& message() const { return failure_->message; }
  const Metadata& metadata() const { return failure_->metadata; }

 private:
  struct Failure {
    std::string reason;
    std::string message;
    Metadata metadata;
  };
  std::shared_ptr<const Failure> failure_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                                  // NOLINT
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }  // NOLINT

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  // REQUIRES: ok().
  T& operator*() & {
    assert(ok());
    return *value_;
  }
  const T& operator*() const& {
    assert(ok());
    return *value_;
  }
  T&& operator*() && {
    assert(ok());
    return std::move(*value_);
  }
  T* operator->() {
    assert(ok());
    return &*value_;
  }
  const T* operator->() const {
    assert(ok());
    return &*value_;
  }

 private:
  std::optional<T> value_;
  Status status_;
};

inline const Status& ToStatus(const Status& status) { return status; }
template <typename T>
const Status& ToStatus(const Result<T>& result) {
  return result.status();
}

#define BLOCKFERRY_JOIN_(a, b) a##b
#define BLOCKFERRY_JOIN(a, b) BLOCKFERRY_JOIN_(a, b)

// Works on a Status and on a Result whose value is not wanted.
#define RETURN_IF_ERROR(expression)                                       \
  do {                                                                    \
    if (auto&& status_or_result = (expression); !status_or_result.ok()) { \
      return ::blockferry::ToStatus(status_or_result);                    \
    }                                                                     \
  } while (false)

#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_(BLOCKFERRY_JOIN(result_of_line_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_(result, declaration, expression) \
  auto result = (expression);                              \
  if (!result.ok()) return result.status();                \
  declaration = *std::move(result)

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_STATUS_H_
