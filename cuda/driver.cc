#include "driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

namespace hpformer::cuda {
namespace {

std::mutex gMutex;
Driver gTable;
bool gReady = false;
const Driver* gReplacement = nullptr;

template <typename Function>
bool find(void* library, const char* symbol, Function* out) {
  *out = reinterpret_cast<Function>(dlsym(library, symbol));
  return *out != nullptr;
}

bool open(Driver* table, std::string* reason) {
  const char* named = std::getenv("HPFORMER_CUDA_LIBRARY");
  const char* path = named && *named ? named : "libcuda.so.1";
  // Never closed again: drivers keep threads and exit handlers of their own.
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    *reason = std::string("no CUDA driver: ") + (why ? why : path);
    return false;
  }
  const char* missing = nullptr;
#define HPFORMER_CUDA_REQUIRE(member, symbol, parameters) \
  if (!find(library, #symbol, &table->member) && !missing) missing = #symbol;
  HPFORMER_CUDA_FUNCTIONS(HPFORMER_CUDA_REQUIRE)
#undef HPFORMER_CUDA_REQUIRE
#define HPFORMER_CUDA_MAYBE(member, symbol, parameters) find(library, #symbol, &table->member);
  HPFORMER_CUDA_OPTIONAL(HPFORMER_CUDA_MAYBE)
#undef HPFORMER_CUDA_MAYBE
  if (missing) {
    *reason = std::string("the CUDA driver ") + path + " is too old: it has no " + missing;
    return false;
  }
  const CUresult result = table->init(0);
  if (result != kSuccess) {
    const char* name = nullptr;
    table->getErrorName(result, &name);
    *reason = std::string("the CUDA driver ") + path + " does not start: " + (name ? name : std::to_string(result));
    return false;
  }
  return true;
}

}  // namespace

const Driver* driver(std::string* reason) {
  std::lock_guard lock(gMutex);
  if (gReplacement) return gReplacement;
  if (!gReady) {
    Driver table;
    if (!open(&table, reason)) return nullptr;
    gTable = table;
    gReady = true;
  }
  return &gTable;
}

void replaceDriverForTests(const Driver* table) {
  std::lock_guard lock(gMutex);
  gReplacement = table;
}

Status driverError(const Driver& d, int ordinal, const char* call, CUresult result) {
  const char* name = nullptr;
  if (d.getErrorName) d.getErrorName(result, &name);
  return {result == kOutOfMemory ? StatusCode::memory : StatusCode::device,
          "cuda:" + std::to_string(ordinal) + ": " + call + " failed with " +
              (name ? name : "error " + std::to_string(result))};
}

}  // namespace hpformer::cuda
