#include "task.h"

#include "values.h"

namespace blockferry {

Napi::Object ProgressObject(Napi::Env env, const Progress& progress) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("size_bytes", NumberOf(env, progress.size_bytes.value()));
  object.Set("position_bytes", NumberOf(env, progress.position_bytes.value()));
  object.Set("allocated_bytes", NumberOf(env, progress.allocated_bytes.value()));
  object.Set("changed_bytes", NumberOf(env, progress.changed_bytes.value()));
  object.Set("read_bytes", NumberOf(env, progress.read_bytes.value()));
  object.Set("stored_bytes", NumberOf(env, progress.stored_bytes.value()));
  object.Set("block_count", NumberOf(env, progress.block_count.value()));
  object.Set("compared_bytes", NumberOf(env, progress.compared_bytes.value()));
  return object;
}

Napi::Object TaskObject(Napi::Env env, std::shared_ptr<TaskState> state, Napi::Promise result) {
  // A caller may drop the task, and with it the only one who would look at a failure:
  // that must not count as an unhandled rejection, which ends the process.
  const Napi::Function ignore = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  const Napi::Value handle = result.Get("catch");
  if (handle.IsFunction()) handle.As<Napi::Function>().Call(result, {ignore});

  Napi::Object task = Napi::Object::New(env);
  task.Set("progress", Napi::Function::New(
                           env,
                           [state](const Napi::CallbackInfo& info) -> Napi::Value {
                             return ProgressObject(info.Env(), state->progress);
                           },
                           "progress"));
  task.Set("cancel",
           Napi::Function::New(
               env, [state](const Napi::CallbackInfo&) { state->cancel.Request(); }, "cancel"));
  task.Set("result", result);
  return task;
}

}  // namespace blockferry
