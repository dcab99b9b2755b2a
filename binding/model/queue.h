// Bounded first-in first-out queues of blocking work on threads of our own, never on libuv's pool.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>

#include "binding/contract/status.h"

namespace hpformer {

// One piece of work. The queue does not own it: the owner keeps it alive until finish() has begun.
class Job {
 public:
  virtual ~Job() = default;
  virtual void work() = 0;  // on a runner thread; must not throw
  // After work(), on the runner, once for every job that was accepted and neither withdrawn nor left by close(); the
  // queue does not touch the job again.
  virtual void finish() = 0;
  std::atomic<bool> cancelled{false};  // a job that is cancelled before it starts skips work()
};

class RunQueue {
 public:
  RunQueue(size_t runners, size_t limit) : runners_(runners), limit_(limit) {}
  RunQueue(const RunQueue&) = delete;
  RunQueue& operator=(const RunQueue&) = delete;

  // Starts a runner when all are busy and fewer than `runners` exist. Fails with `limit` when `limit` jobs wait already
  // and with `memory` when not even a first thread could be started.
  Status push(Job* job);
  // Takes back a job that has not started; true when it did, and then the owner finishes it.
  bool withdraw(Job* job);
  // At process exit: nothing starts any more, jobs on their way are cancelled, and we wait for them for at most a
  // second.
  void close();

 private:
  void runner();

  const size_t runners_, limit_;
  std::mutex mutex_;
  std::condition_variable wake_, quiet_;
  std::deque<Job*> waiting_;
  std::deque<Job*> running_;
  size_t threads_ = 0, idle_ = 0;
  bool closed_ = false;
};

// Both live until the process ends. Runs: as many as there are cores to share; loads: two at a time.
RunQueue& runQueue();
RunQueue& loadQueue();

}  // namespace hpformer
