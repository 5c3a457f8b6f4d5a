// Work on threads of its own whose result is a promise.
//
// A job's Run sees plain C++ values only; Settle runs on the JavaScript thread. When the
// environment ends, all jobs are cancelled and joined before anything they use goes away.
#ifndef BLOCKFERRY_ADDON_JOBS_H_
#define BLOCKFERRY_ADDON_JOBS_H_

#include <napi.h>

#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "core/cancel.h"
#include "core/status.h"
#include "values.h"

namespace blockferry {

class Job {
 public:
  virtual ~Job() = default;
  // On a thread of its own.
  virtual void Run() = 0;
  // On the JavaScript thread, after Run.
  virtual void Settle(Napi::Env env) = 0;
  // On the JavaScript thread: asks Run to return soon.
  virtual void Cancel() = 0;
};

// The jobs of one environment. JavaScript thread only.
class Jobs {
 public:
  // Once for each environment, before anything else.
  static void Install(Napi::Env env);
  static Jobs& Of(Napi::Env env) { return *env.GetInstanceData<Jobs>(); }

  void Start(std::unique_ptr<Job> job);

 private:
  static void Finished(napi_env env, napi_value, void* context, void* data);
  static void Close(void* data);

  // Keeps the event loop alive while jobs run. Made before the cleanup hook, so that the
  // hook, which joins the threads, runs before it is torn down.
  napi_threadsafe_function finished_ = nullptr;
  napi_env env_ = nullptr;

  struct Running {
    std::unique_ptr<Job> job;
    std::thread thread;
  };
  std::unordered_map<Job*, Running> running_;
};

// Calls `work` on a thread and settles a promise with what `build` makes of its value.
template <typename T>
class PromiseJob final : public Job {
 public:
  using Work = std::function<Result<T>()>;
  using Build = std::function<Napi::Value(Napi::Env, const T&)>;

  PromiseJob(Napi::Env env, Work work, Build build, std::shared_ptr<blockferry::Cancel> cancel)
      : deferred_(Napi::Promise::Deferred::New(env)),
        work_(std::move(work)),
        build_(std::move(build)),
        cancel_(std::move(cancel)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Run() override {
    result_.emplace(work_());
    // What the work holds is let go on its own thread: closing files may take time.
    work_ = nullptr;
  }
  void Settle(Napi::Env env) override {
    if (result_->ok()) {
      deferred_.Resolve(build_(env, **result_));
    } else {
      deferred_.Reject(ErrorOf(env, result_->status()));
    }
  }
  void Cancel() override {
    if (cancel_ != nullptr) cancel_->Request();
  }

 private:
  Napi::Promise::Deferred deferred_;
  Work work_;
  Build build_;
  std::shared_ptr<blockferry::Cancel> cancel_;
  std::optional<Result<T>> result_;
};

template <typename T>
Napi::Promise StartJob(Napi::Env env, typename PromiseJob<T>::Work work,
                       typename PromiseJob<T>::Build build,
                       std::shared_ptr<Cancel> cancel = nullptr) {
  auto job =
      std::make_unique<PromiseJob<T>>(env, std::move(work), std::move(build), std::move(cancel));
  const Napi::Promise promise = job->promise();
  Jobs::Of(env).Start(std::move(job));
  return promise;
}

// A promise that is rejected already.
Napi::Promise Rejected(Napi::Env env, const Status& failure);

// The result of work that gives nothing.
struct Nothing {};
Napi::Value BuildNothing(Napi::Env env, const Nothing&);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_JOBS_H_
