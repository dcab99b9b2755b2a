// The real driver (HPFORMER_CUDA_LIBRARY) behind a table of wrappers: what lives is counted, each call can be seen,
// held up or made to fail before it reaches the driver, and one device can pose as several.
#pragma once
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <type_traits>

#include "cuda/driver.h"
#include "cuda_check.h"

namespace hpformer::testing {
namespace watch {

namespace cuda = hpformer::cuda;

// Sees every call before the driver does, with the stream it is for (that of an event: where it was recorded; null:
// none). An answer other than kSuccess is the caller's, and the driver never hears of it. Set it while nothing runs.
inline std::function<cuda::CUresult(const char* name, cuda::CUstream stream)> before;

// Told on the way into the driver (true) and out of it.
inline void (*crossing)(bool into) = nullptr;

inline cuda::Driver real;     // as the library has it
inline cuda::Driver aliased;  // `real`, its first device posing as several
inline int devices = 1;
inline std::mutex mutex;                            // all below
inline std::map<std::string, int64_t> live;         // objects made minus objects freed, by kind
inline std::map<cuda::CUdeviceptr, size_t> memory;  // device memory by address
inline std::map<const char*, size_t> pinned;        // pinned host memory by address
inline std::map<cuda::CUevent, cuda::CUstream> recorded;
inline int64_t liveBytes = 0;

inline const std::map<std::string, std::pair<const char*, int>> kObjects = {
    {"primaryRetain", {"contexts", 1}},  {"primaryRelease", {"contexts", -1}}, {"moduleLoadData", {"modules", 1}},
    {"moduleUnload", {"modules", -1}},   {"memHostAlloc", {"pinned", 1}},      {"memFreeHost", {"pinned", -1}},
    {"streamCreate", {"streams", 1}},    {"streamDestroy", {"streams", -1}},   {"eventCreate", {"events", 1}},
    {"eventDestroy", {"events", -1}},    {"endCapture", {"captures", 1}},      {"graphDestroy", {"captures", -1}},
    {"graphInstantiate", {"graphs", 1}}, {"graphExecDestroy", {"graphs", -1}}, {"ctxPush", {"pushed", 1}},
    {"ctxPop", {"pushed", -1}}};

template <typename... Args>
void observe(const char* name, Args... args) {
  std::lock_guard lock(mutex);
  if (const auto found = kObjects.find(name); found != kObjects.end())
    live[found->second.first] += found->second.second;
  auto all = std::make_tuple(args...);
  if constexpr (sizeof...(Args) >= 1) {
    using First = std::tuple_element_t<0, decltype(all)>;
    if constexpr (std::is_same_v<First, cuda::CUdeviceptr*> && sizeof...(Args) >= 2) {
      memory[*std::get<0>(all)] = std::get<1>(all);
      liveBytes += static_cast<int64_t>(std::get<1>(all));
    }
    if constexpr (std::is_same_v<First, cuda::CUdeviceptr>) {
      if (std::strncmp(name, "memFree", 7) == 0) {
        liveBytes -= static_cast<int64_t>(memory[std::get<0>(all)]);
        memory.erase(std::get<0>(all));
      }
    }
    if constexpr (std::is_same_v<First, cuda::CUevent> && sizeof...(Args) == 2) {
      recorded[std::get<0>(all)] = std::get<1>(all);
    }
    if constexpr (std::is_same_v<First, void**>) pinned[static_cast<char*>(*std::get<0>(all))] = std::get<1>(all);
    if constexpr (std::is_same_v<First, void*> && sizeof...(Args) == 1) {
      pinned.erase(static_cast<char*>(std::get<0>(all)));
    }
  }
}

inline cuda::CUstream streamOf() { return nullptr; }
template <typename First, typename... Rest>
cuda::CUstream streamOf(First first, Rest... rest) {
  if constexpr (std::is_same_v<First, cuda::CUstream>) {
    return first;
  } else if constexpr (std::is_same_v<First, cuda::CUevent> && sizeof...(Rest) == 0) {
    std::lock_guard lock(mutex);
    return recorded[first];
  } else {
    return streamOf(rest...);
  }
}

struct Crossing {
  Crossing() {
    if (crossing) crossing(true);
  }
  ~Crossing() {
    if (crossing) crossing(false);
  }
};

template <typename Tag, typename Function>
struct Wrap;
template <typename Tag, typename... Args>
struct Wrap<Tag, cuda::CUresult (*)(Args...)> {
  static cuda::CUresult call(Args... args) {
    const Crossing inside;
    if (before && std::strcmp(Tag::name(), "getErrorName") != 0) {
      if (const cuda::CUresult answer = before(Tag::name(), streamOf(args...)); answer != cuda::kSuccess) return answer;
    }
    const cuda::CUresult result = (aliased.*Tag::member())(args...);
    if (result == cuda::kSuccess) observe(Tag::name(), args...);
    return result;
  }
};

#define HPFORMER_TEST_TAG(member_, symbol, parameters)      \
  struct Tag_##member_ {                                    \
    static const char* name() { return #member_; }          \
    static auto member() { return &cuda::Driver::member_; } \
  };
HPFORMER_CUDA_FUNCTIONS(HPFORMER_TEST_TAG)
HPFORMER_CUDA_OPTIONAL(HPFORMER_TEST_TAG)
#undef HPFORMER_TEST_TAG

// Puts the wrappers in place; no device may be in use. There are `count` devices then, all of them the first one.
inline void start(int count = 1) {
  std::string reason;
  if (!real.init) real = *cuda::driver(&reason);
  devices = count;
  aliased = real;
  aliased.deviceGetCount = [](int* out) { return *out = devices, cuda::kSuccess; };
  aliased.deviceGet = [](cuda::CUdevice* device, int i) {
    return i < 0 || i >= devices ? cuda::CUresult{101} : (*device = i, cuda::kSuccess);
  };
  aliased.deviceGetName = [](char* name, int size, cuda::CUdevice) { return real.deviceGetName(name, size, 0); };
  aliased.deviceGetAttribute = [](int* value, int what, cuda::CUdevice) {
    return real.deviceGetAttribute(value, what, 0);
  };
  aliased.deviceTotalMem = [](size_t* bytes, cuda::CUdevice) { return real.deviceTotalMem(bytes, 0); };
  aliased.primaryRetain = [](cuda::CUcontext* context, cuda::CUdevice) { return real.primaryRetain(context, 0); };
  aliased.primaryRelease = [](cuda::CUdevice) { return real.primaryRelease(0); };
  static cuda::Driver table;
#define HPFORMER_TEST_FILL(member_, symbol, parameters) \
  table.member_ = real.member_ ? &Wrap<Tag_##member_, decltype(cuda::Driver::member_)>::call : nullptr;
  HPFORMER_CUDA_FUNCTIONS(HPFORMER_TEST_FILL)
  HPFORMER_CUDA_OPTIONAL(HPFORMER_TEST_FILL)
#undef HPFORMER_TEST_FILL
  cuda::replaceDriverForTests(&table);
}

inline void stop() { cuda::replaceDriverForTests(nullptr); }

// From here on a module is read once and kept, and so is the context: loading again and again is then quick. What the
// backend asks for is still counted.
inline void keepModules() {
  static std::map<const void*, cuda::CUmodule> kept;
  static cuda::CUcontext context;
  expect(real.primaryRetain(&context, 0) == cuda::kSuccess, "a context to keep modules in");
  aliased.moduleLoadData = [](cuda::CUmodule* module, const void* data) {
    std::lock_guard lock(mutex);
    if (!kept.count(data)) {
      if (const cuda::CUresult result = real.moduleLoadData(module, data); result != cuda::kSuccess) return result;
      kept[data] = *module;
    }
    *module = kept[data];
    return cuda::kSuccess;
  };
  aliased.moduleUnload = [](cuda::CUmodule) { return cuda::kSuccess; };
}

// Whether `address` lies in pinned memory.
inline bool isPinned(const void* address) {
  std::lock_guard lock(mutex);
  const char* at = static_cast<const char*>(address);
  auto block = pinned.upper_bound(at);
  return block != pinned.begin() && at < (--block)->first + block->second;
}

// Everything made has been freed. `excused`: kinds that a failing call was allowed to leave behind.
inline void nothingLeft(const std::string& after, const std::function<bool(const std::string& kind)>& excused = {}) {
  std::lock_guard lock(mutex);
  live["bytes"] = liveBytes;
  for (const auto& [kind, count] : live) {
    if (count != 0 && !(excused && excused(kind))) {
      expect(false, after + ": " + std::to_string(count) + " " + kind + " left");
    }
  }
  live.clear();
  memory.clear();
  liveBytes = 0;
}

}  // namespace watch
}  // namespace hpformer::testing
