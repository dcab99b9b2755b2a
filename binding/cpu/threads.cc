#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include "backend.h"
#include "binding/contract/thread.h"
#include "quota.h"
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace hpformer {
namespace {

int coresAllowed() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// Waits a little while for `ready` without giving the CPU back, then returns either way. Runs follow each other within
// some 100 microseconds; a thread that slept in between may be woken on the CPU of its waker and wait there for
// milliseconds while another CPU idles.
template <typename Ready>
void spin(Ready&& ready) {
  constexpr std::chrono::microseconds kLongest{200};
  const auto end = std::chrono::steady_clock::now() + kLongest;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      __asm__ volatile("yield");
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
}

// One parallelFor in progress.
struct Loop {
  const std::function<void(int64_t)>* body;
  int64_t count;
  std::atomic<int64_t> next{0};
  int helpersWanted = 0;              // guarded by the pool's mutex
  std::atomic<int> helpersActive{0};  // changed under the pool's mutex

  void work() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) (*body)(i);
  }
};

class Pool {
 public:
  // Leaked on purpose: threads may still wait here while the process exits.
  static Pool& shared() {
    static Pool* const pool = new Pool;
    return *pool;
  }

  void run(Loop* loop, int helpers) {
    int wanted = 0;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      grow(helpers);
      wanted = loop->helpersWanted = std::min(helpers, threads_);
      if (wanted > 0) loops_.push_back(loop);
      open_ = loops_.size();
      keepOffCaller();
    }
    for (int i = 0; i < wanted; ++i) wake_.notify_one();
    loop->work();
    std::unique_lock<std::mutex> lock(mutex_);
    loops_.erase(std::remove(loops_.begin(), loops_.end(), loop), loops_.end());
    open_ = loops_.size();
    lock.unlock();  // nobody joins any more
    const auto alone = [&] { return loop->helpersActive == 0; };
    spin(alone);
    lock.lock();
    done_.wait(lock, alone);
  }

 private:
  // A scheduler may wake a helper on the CPU of its caller and leave both there for milliseconds, with another CPU
  // idle. Helpers are therefore kept off the CPU that the caller was last seen on; the caller itself may go anywhere.
  void keepOffCaller() {
#if defined(__linux__)
    const int cpu = sched_getcpu();
    if (loops_.size() > 1) return;  // several callers: no one CPU to keep off
    if (cpu == avoided_ && placed_ == helpers_.size()) return;
    avoided_ = cpu;
    placed_ = helpers_.size();
    cpu_set_t set;
    if (cpu < 0 || sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) < 2) return;
    CPU_CLR(static_cast<size_t>(cpu), &set);
    for (const pid_t helper : helpers_) sched_setaffinity(helper, sizeof set, &set);  // a refusal costs speed only
#endif
  }

  void grow(int helpers) {
    while (threads_ < helpers) {
      const auto serve = [](void* pool) -> void* {
        static_cast<Pool*>(pool)->serve();
        return nullptr;
      };
      if (!startThread(serve, this)) return;  // no more threads to be had: the caller does the work alone
      ++threads_;
    }
  }

  void serve() {
    computeQuietly();
    std::unique_lock<std::mutex> lock(mutex_);
#if defined(__linux__)
    helpers_.push_back(static_cast<pid_t>(syscall(SYS_gettid)));
#endif
    for (;;) {
      if (loops_.empty()) {
        lock.unlock();
        spin([&] { return open_ > 0; });
        lock.lock();
      }
      wake_.wait(lock, [&] { return !loops_.empty(); });
      Loop* loop = loops_.front();
      ++loop->helpersActive;
      if (--loop->helpersWanted == 0) loops_.erase(loops_.begin());
      open_ = loops_.size();
      lock.unlock();
      loop->work();
      lock.lock();
      if (--loop->helpersActive == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<Loop*> loops_;     // that want helpers
  std::atomic<size_t> open_{0};  // how many, to look at without the mutex
  int threads_ = 0;
#if defined(__linux__)
  std::vector<pid_t> helpers_;
  size_t placed_ = 0;  // how many of them keep off CPU avoided_
  int avoided_ = -1;
#endif
};

}  // namespace

int defaultThreads() {
  static const int threads = [] {
    if (const char* text = std::getenv("HPFORMER_THREADS")) {
      const long wanted = std::strtol(text, nullptr, 10);
      if (wanted >= 1 && wanted <= 1024) return static_cast<int>(wanted);
    }
    const int cores = coresAllowed();
#if defined(__linux__)
    const double quota = cpuQuota("");
    if (quota > 0 && quota < cores) return static_cast<int>(std::ceil(quota));
#endif
    return cores;
  }();
  return threads;
}

void parallelFor(int64_t count, int threads, const std::function<void(int64_t)>& body) {
  if (count <= 0) return;
  Loop loop{&body, count};
  const int helpers = static_cast<int>(std::min<int64_t>(count, threads)) - 1;
  if (helpers <= 0) {
    loop.work();
    return;
  }
  Pool::shared().run(&loop, helpers);
}

}  // namespace hpformer
