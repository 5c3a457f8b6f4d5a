#include "target/target_failure.h"

#include <cerrno>
#include <cstring>
#include <string_view>

namespace blockferry {
namespace {

struct Verdict {
  std::string_view reason;
  const char* advice;
};

Verdict VerdictOn(int error_number) {
  switch (error_number) {
    case EEXIST:
      return {reason::kTargetExists, "remove it or name another place"};
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return {reason::kTargetFull, "free space or name a place on a larger file system"};
    case EACCES:
    case EPERM:
    case EROFS:
      return {reason::kTargetDenied, "let this user write there or name another place"};
    case ENOENT:
    case ENOTDIR:
      return {reason::kTargetWriteFailed, "create the folder first"};
    default:
      return {reason::kTargetWriteFailed, "check the storage and restore again"};
  }
}

}  // namespace

Status TargetFailure(const std::string& doing, const std::string& place, int error_number) {
  const Verdict verdict = VerdictOn(error_number);
  const std::string cause = std::strerror(error_number);
  return Status(verdict.reason, doing + " " + place + ": " + cause + "; " + verdict.advice,
                {{"target", place}, {"cause", cause}});
}

}  // namespace blockferry
