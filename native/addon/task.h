// A task as JavaScript sees it: progress(), cancel(), result.
#ifndef BLOCKFERRY_ADDON_TASK_H_
#define BLOCKFERRY_ADDON_TASK_H_

#include <napi.h>

#include <memory>

#include "core/cancel.h"
#include "core/progress.h"

namespace blockferry {

// Shared by the work and by the JavaScript object; either may end first.
struct TaskState {
  Cancel cancel;
  Progress progress;
};

Napi::Object ProgressObject(Napi::Env env, const Progress& progress);

Napi::Object TaskObject(Napi::Env env, std::shared_ptr<TaskState> state, Napi::Promise result);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_TASK_H_
