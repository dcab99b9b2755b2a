// The process's compute threads: one pool, shared by all models, environments and workers. Never libuv's pool.
#pragma once
#include <cstdint>
#include <functional>

namespace hpformer {

// Calls body(index) for every index in [0, count), on the calling thread and on up to `threads` - 1 pool threads, and
// returns when all calls are done. Indices are handed out in ascending order. `body` must not throw.
void parallelFor(int64_t count, int threads, const std::function<void(int64_t)>& body);

}  // namespace hpformer
