// Detached threads that live as long as the process, with a stack that holds the kernels' buffers: products on tiles or
// in fixed point take some 100 KB, about all that musl gives a thread by itself.
#pragma once
#include <cstddef>

#include "float_mode.h"
#if defined(_WIN32)
#include <thread>
#else
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace hpformer {

inline constexpr std::size_t kThreadStack = std::size_t{1} << 20;

// Calls run(with) on a thread of its own; false when no thread can be had.
inline bool startThread(void* (*run)(void*), void* with) {
#if defined(_WIN32)  // 1 MB by default
  try {
    std::thread(run, with).detach();
    return true;
  } catch (...) {
    return false;
  }
#else
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  std::size_t size = 0;
  if (pthread_attr_getstacksize(&attributes, &size) == 0 && size < kThreadStack)
    pthread_attr_setstacksize(&attributes, kThreadStack);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, run, with) == 0;
  pthread_attr_destroy(&attributes);
  return started;
#endif
}

// For the calling thread, one that computes: when woken it no longer takes the CPU from the thread that woke it. An
// event loop that submits a run would else be off its CPU, in the middle of the call, until the run's first time slice
// ends. Its floating-point mode is the default one, not that of the thread that started it.
inline void computeQuietly() {
  setFloatMode(kDefaultFloatMode);
#if defined(__linux__)
  const sched_param none{};
  if (sched_getscheduler(0) == SCHED_OTHER) sched_setscheduler(0, SCHED_BATCH, &none);  // a refusal costs nothing else
#endif
}

}  // namespace hpformer
