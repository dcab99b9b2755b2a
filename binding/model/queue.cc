#include "queue.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include "binding/cpu/backend.h"
#include "binding/contract/thread.h"

namespace hpformer {
namespace {

constexpr size_t kMostWaiting = 1024;

// Never destroyed: runners wait in them until the process is gone. Running jobs are stopped before static objects of
// other files disappear under them, since this handler was registered after those were made.
RunQueue* makeQueue(size_t runners, size_t limit, void (*atExit)()) {
  RunQueue* queue = new RunQueue(runners, limit);
  std::atexit(atExit);
  return queue;
}

}  // namespace

Status RunQueue::push(Job* job) {
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return {StatusCode::limit, "the process is exiting"};
    if (waiting_.size() >= limit_) {
      return {StatusCode::limit, "expected at most " + std::to_string(limit_) + " waiting runs in this process"};
    }
    if (waiting_.size() >= idle_ && threads_ < runners_) {
      const auto run = [](void* queue) -> void* {
        static_cast<RunQueue*>(queue)->runner();
        return nullptr;
      };
      if (startThread(run, this)) {
        ++threads_;
      } else if (threads_ == 0) {
        return {StatusCode::memory, "a thread could not be started"};
      }
    }
    waiting_.push_back(job);
  } catch (const std::exception&) {
    return {StatusCode::memory, "the run queue could not grow"};
  }
  wake_.notify_one();
  return {};
}

bool RunQueue::withdraw(Job* job) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find(waiting_.begin(), waiting_.end(), job);
  if (found == waiting_.end()) return false;
  waiting_.erase(found);
  return true;
}

void RunQueue::runner() {
  computeQuietly();
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    ++idle_;
    wake_.wait(lock, [this] { return !waiting_.empty() && !closed_; });
    --idle_;
    Job* job = waiting_.front();
    waiting_.pop_front();
    running_.push_back(job);
    lock.unlock();
    if (!job->cancelled.load(std::memory_order_relaxed)) job->work();
    lock.lock();
    running_.erase(std::find(running_.begin(), running_.end(), job));
    if (closed_) {
      // The process is leaving: its event loops are gone or going, nobody may be called.
      quiet_.notify_all();
      continue;
    }
    lock.unlock();
    job->finish();
    lock.lock();
  }
}

void RunQueue::close() {
  std::unique_lock<std::mutex> lock(mutex_);
  closed_ = true;
  for (Job* job : running_) job->cancelled.store(true, std::memory_order_relaxed);
  quiet_.wait_for(lock, std::chrono::seconds(1), [this] { return running_.empty(); });
}

RunQueue& runQueue() {
  static RunQueue* queue =
      makeQueue(static_cast<size_t>(std::clamp(defaultThreads(), 2, 64)), kMostWaiting, [] { runQueue().close(); });
  return *queue;
}

RunQueue& loadQueue() {
  static RunQueue* queue = makeQueue(2, kMostWaiting, [] { loadQueue().close(); });
  return *queue;
}

}  // namespace hpformer
