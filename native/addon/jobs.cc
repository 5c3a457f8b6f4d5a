#include "jobs.h"

namespace blockferry {

void Jobs::Install(Napi::Env env) {
  auto* jobs = new Jobs();
  env.SetInstanceData(jobs);
  jobs->env_ = env;
  napi_value name = Napi::String::New(env, "blockferry");
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, jobs,
                                  Finished, &jobs->finished_);
  napi_unref_threadsafe_function(env, jobs->finished_);
  napi_add_env_cleanup_hook(env, Close, jobs);
}

void Jobs::Start(std::unique_ptr<Job> job) {
  if (running_.empty()) napi_ref_threadsafe_function(env_, finished_);
  Job* key = job.get();
  Running& running = running_[key];
  running.job = std::move(job);
  running.thread = std::thread([key, finished = finished_] {
    key->Run();
    // The queue has no limit of its own: it holds at most the running jobs.
    napi_call_threadsafe_function(finished, key, napi_tsfn_nonblocking);
  });
}

void Jobs::Finished(napi_env env, napi_value, void* context, void* data) {
  if (env == nullptr) return;  // The environment ends; Close has joined the thread.
  auto* jobs = static_cast<Jobs*>(context);
  const auto found = jobs->running_.find(static_cast<Job*>(data));
  if (found == jobs->running_.end()) return;
  Running running = std::move(found->second);
  jobs->running_.erase(found);
  if (jobs->running_.empty()) napi_unref_threadsafe_function(env, jobs->finished_);
  running.thread.join();
  Napi::HandleScope scope(env);
  running.job->Settle(env);
}

void Jobs::Close(void* data) {
  auto* jobs = static_cast<Jobs*>(data);
  for (auto& [key, running] : jobs->running_) running.job->Cancel();
  for (auto& [key, running] : jobs->running_) running.thread.join();
  jobs->running_.clear();
}

Napi::Promise Rejected(Napi::Env env, const Status& failure) {
  const Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(ErrorOf(env, failure));
  return deferred.Promise();
}

Napi::Value BuildNothing(Napi::Env env, const Nothing&) { return env.Undefined(); }

}  // namespace blockferry
