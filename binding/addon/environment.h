// What one JavaScript environment (main thread or worker) owns, and how finished work finds its way back to it.
#pragma once
#include <napi.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "binding/model/model.h"
#include "binding/model/queue.h"

namespace hpformer::addon {

class Environment;
class EnvironmentJob;

// The meeting point of runner threads and one environment. Outlives the environment while a runner holds it.
struct Port {
  std::mutex mutex;
  std::condition_variable quiet;
  std::vector<EnvironmentJob*> finished;    // delivered on the JavaScript thread
  size_t working = 0;                       // jobs that a queue still has
  napi_threadsafe_function wake = nullptr;  // null before the first job and after the environment closed it
  bool signalled = false;
};

// A job that reports to an environment. Owned by the environment, except while a queue has it.
class EnvironmentJob : public Job {
 public:
  // On the JavaScript thread, after finish(): tells JavaScript, then frees or recycles itself.
  virtual void deliver(Environment& environment) = 0;
  void finish() final;

  Status status;
  int64_t id = 0;
  std::shared_ptr<Port> port;
};

// Keeps a JavaScript value alive; not released at environment teardown, when Node frees all references itself.
class Held {
 public:
  void hold(napi_env env, napi_value value) { napi_create_reference(env, value, 1, &reference_); }
  napi_value value(napi_env env) const {
    napi_value result = nullptr;
    napi_get_reference_value(env, reference_, &result);
    return result;
  }
  void release(napi_env env) {
    if (reference_) napi_delete_reference(env, reference_);
    reference_ = nullptr;
  }

 private:
  napi_ref reference_ = nullptr;
};

class RunJob;

class Environment {
 public:
  explicit Environment(Napi::Env env);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  static Environment& of(napi_env env);

  napi_env env() const { return env_; }

  // Hands a job to a queue; one that has failed already, or that the queue refuses, is delivered without running.
  // Returns the job's number.
  int64_t start(std::unique_ptr<EnvironmentJob> job, RunQueue& queue);
  void cancel(int64_t id);

  // Jobs keep their buffers between runs.
  std::unique_ptr<RunJob> takeRunJob();
  void recycle(std::unique_ptr<RunJob> job);

  // Calls a JavaScript function; what it throws becomes an uncaught exception, as from any callback.
  void call(napi_value function, size_t count, const napi_value* arguments);

  Napi::FunctionReference modelClass;
  std::shared_ptr<const Model> modelToWrap;  // the argument of the next construction of modelClass

 private:
  static void wake(napi_env env, napi_value, void* context, void*);
  static void wakeGone(napi_env env, void* data, void* context);
  static void cleanup(void* environment);
  bool open();
  void enlist(EnvironmentJob* job);
  void deliverAll();
  void settle();

  napi_env env_;
  std::shared_ptr<Port> port_;
  std::vector<EnvironmentJob*> pending_;  // started and not delivered yet
  std::vector<EnvironmentJob*> batch_;    // being delivered
  std::vector<std::unique_ptr<RunJob>> idle_;
  size_t idleBytes_ = 0;  // of all of them
  RunQueue* queues_[2];
  int64_t lastId_ = 0;
  bool referenced_ = false, closed_ = false;
};

}  // namespace hpformer::addon
