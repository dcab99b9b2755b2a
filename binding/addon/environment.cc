#include "environment.h"

#include <algorithm>

#include "run_job.h"

namespace hpformer::addon {
namespace {

// Finished jobs keep their copies of feeds for the next run: so many, and so many bytes in all.
constexpr size_t kIdleJobs = 32;
constexpr size_t kIdleBytes = size_t{64} << 20;

}  // namespace

void EnvironmentJob::finish() {
  // The job belongs to the JavaScript thread as soon as it is in `finished`; the port must not die with it.
  const std::shared_ptr<Port> to = port;
  const std::lock_guard<std::mutex> lock(to->mutex);
  to->finished.push_back(this);  // room was made by enlist()
  --to->working;
  to->quiet.notify_all();
  if (!to->wake || to->signalled) return;
  // The lock keeps wakeGone() away, so the function exists during this call; after napi_closing it is never called
  // again.
  if (napi_call_threadsafe_function(to->wake, nullptr, napi_tsfn_nonblocking) == napi_ok) {
    to->signalled = true;
  } else {
    to->wake = nullptr;
  }
}

Environment::Environment(Napi::Env env)
    : env_(env), port_(std::make_shared<Port>()), queues_{&runQueue(), &loadQueue()} {
  napi_add_env_cleanup_hook(env_, cleanup, this);
}

Environment::~Environment() {
  if (!closed_) napi_remove_env_cleanup_hook(env_, cleanup, this);
  settle();
  modelClass.SuppressDestruct();
}

Environment& Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Environment*>(data);
}

void Environment::cleanup(void* environment) {
  Environment& self = *static_cast<Environment*>(environment);
  self.closed_ = true;
  self.settle();
}

// Stops all work of this environment and waits for it: the arrays that runners fill go away next.
void Environment::settle() {
  for (EnvironmentJob* job : pending_) job->cancelled.store(true, std::memory_order_relaxed);
  for (EnvironmentJob* job : pending_) {
    if (queues_[0]->withdraw(job) || queues_[1]->withdraw(job)) job->finish();
  }
  std::unique_lock<std::mutex> lock(port_->mutex);
  port_->quiet.wait(lock, [this] { return port_->working == 0; });
  port_->finished.clear();
  lock.unlock();
  for (EnvironmentJob* job : pending_) delete job;
  pending_.clear();
  idle_.clear();
}

bool Environment::open() {
  if (closed_) return false;
  bool fresh = false;
  {
    const std::lock_guard<std::mutex> lock(port_->mutex);
    fresh = port_->wake == nullptr;
  }
  if (fresh) {
    napi_threadsafe_function made = nullptr;
    napi_value name = stringValue(env_, "hpformer");
    if (napi_create_threadsafe_function(env_, nullptr, nullptr, name, 0, 1, new std::shared_ptr<Port>(port_), wakeGone,
                                        this, wake, &made) != napi_ok) {
      return false;
    }
    const std::lock_guard<std::mutex> lock(port_->mutex);
    port_->wake = made;
    port_->signalled = false;
    referenced_ = true;
  } else if (!referenced_) {
    napi_ref_threadsafe_function(env_, port_->wake);
    referenced_ = true;
  }
  return true;
}

void Environment::enlist(EnvironmentJob* job) {
  const size_t count = pending_.size() + 1;
  pending_.reserve(count);
  batch_.reserve(count);
  const std::lock_guard<std::mutex> lock(port_->mutex);
  port_->finished.reserve(count);
  job->port = port_;
  job->id = ++lastId_;
  pending_.push_back(job);
  ++port_->working;
}

int64_t Environment::start(std::unique_ptr<EnvironmentJob> owned, RunQueue& queue) {
  if (!open()) throw Napi::Error::New(env_, "hpformer: this environment is closing");
  EnvironmentJob* job = owned.get();
  enlist(job);
  owned.release();
  const int64_t id = job->id;
  if (job->status.ok()) {
    Status refused = queue.push(job);
    if (refused.ok()) return id;
    job->status = std::move(refused);
  }
  job->finish();
  return id;
}

void Environment::cancel(int64_t id) {
  for (EnvironmentJob* job : pending_) {
    if (job->id != id) continue;
    job->cancelled.store(true, std::memory_order_relaxed);
    if (queues_[0]->withdraw(job)) {
      job->status = {StatusCode::aborted, "aborted"};
      job->finish();
    }
    return;
  }
}

void Environment::wake(napi_env env, napi_value, void* context, void*) {
  if (env) static_cast<Environment*>(context)->deliverAll();
}

// Node closed the function, on its own at teardown. Under the lock, so that no runner is inside a call.
void Environment::wakeGone(napi_env, void* data, void*) {
  std::unique_ptr<std::shared_ptr<Port>> port(static_cast<std::shared_ptr<Port>*>(data));
  const std::lock_guard<std::mutex> lock((*port)->mutex);
  (*port)->wake = nullptr;
}

void Environment::deliverAll() {
  {
    const std::lock_guard<std::mutex> lock(port_->mutex);
    batch_.swap(port_->finished);
    port_->signalled = false;
    port_->finished.reserve(pending_.size());
  }
  // A callback may submit again, so the batch is a local from here on.
  std::vector<EnvironmentJob*> batch;
  batch.swap(batch_);
  for (EnvironmentJob* job : batch) {
    pending_.erase(std::find(pending_.begin(), pending_.end(), job));
    napi_handle_scope scope;
    napi_open_handle_scope(env_, &scope);
    job->deliver(*this);
    napi_close_handle_scope(env_, scope);
  }
  batch.clear();
  batch_.swap(batch);
  if (pending_.empty() && referenced_) {
    const std::lock_guard<std::mutex> lock(port_->mutex);
    if (port_->wake) napi_unref_threadsafe_function(env_, port_->wake);
    referenced_ = false;
  }
}

std::unique_ptr<RunJob> Environment::takeRunJob() {
  if (idle_.empty()) return std::make_unique<RunJob>();
  std::unique_ptr<RunJob> job = std::move(idle_.back());
  idle_.pop_back();
  idleBytes_ -= job->stagingBytes();
  return job;
}

void Environment::recycle(std::unique_ptr<RunJob> job) {
  job->clear();
  if (closed_ || idle_.size() >= kIdleJobs || idleBytes_ + job->stagingBytes() > kIdleBytes) return;
  idle_.push_back(std::move(job));
  idleBytes_ += idle_.back()->stagingBytes();
}

void Environment::call(napi_value function, size_t count, const napi_value* arguments) {
  napi_value receiver;
  napi_get_undefined(env_, &receiver);
  if (napi_call_function(env_, receiver, function, count, arguments, nullptr) != napi_pending_exception) return;
  napi_value error;
  if (napi_get_and_clear_last_exception(env_, &error) == napi_ok) napi_fatal_exception(env_, error);
}

}  // namespace hpformer::addon
