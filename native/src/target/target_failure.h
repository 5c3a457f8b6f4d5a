// The reason of a failed write to the place that is restored to.
#ifndef BLOCKFERRY_TARGET_TARGET_FAILURE_H_
#define BLOCKFERRY_TARGET_TARGET_FAILURE_H_

#include <string>

#include "core/status.h"

namespace blockferry {

// `doing` completes "<doing> <place>: <what the system says>".
Status TargetFailure(const std::string& doing, const std::string& place, int error_number);

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_TARGET_FAILURE_H_
