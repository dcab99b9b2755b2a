// The CUDA driver API as a table of function pointers, filled at run time from libcuda.so.1 (or the library that
// HPFORMER_CUDA_LIBRARY names). Types and prototypes are declared here, so that neither cuda.h nor any CUDA library is
// needed to compile or link. Symbols carry their explicit version suffix: the oldest one that does what we need.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "binding/contract/status.h"

namespace hpformer::cuda {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphExec = struct CUgraphExec_st*;

inline constexpr CUresult kSuccess = 0;
inline constexpr CUresult kOutOfMemory = 2;
inline constexpr int kAttributeSharedMemoryOptIn = 97;  // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
inline constexpr int kAttributeMultiprocessors = 16;
inline constexpr int kAttributeMajor = 75;
inline constexpr int kAttributeMinor = 76;
inline constexpr int kAttributeMemoryPools = 115;
inline constexpr int kFunctionDynamicShared = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
inline constexpr unsigned kStreamNonBlocking = 1;
inline constexpr unsigned kEventBlockingSync = 1;
inline constexpr unsigned kEventDisableTiming = 2;
inline constexpr int kCaptureThreadLocal = 1;

// X(member, symbol, parameters). Every one of these must be there.
#define HPFORMER_CUDA_FUNCTIONS(X)                                                    \
  X(init, cuInit, (unsigned))                                                         \
  X(driverGetVersion, cuDriverGetVersion, (int*))                                     \
  X(getErrorName, cuGetErrorName, (CUresult, const char**))                           \
  X(deviceGetCount, cuDeviceGetCount, (int*))                                         \
  X(deviceGet, cuDeviceGet, (CUdevice*, int))                                         \
  X(deviceGetName, cuDeviceGetName, (char*, int, CUdevice))                           \
  X(deviceGetAttribute, cuDeviceGetAttribute, (int*, int, CUdevice))                  \
  X(deviceTotalMem, cuDeviceTotalMem_v2, (size_t*, CUdevice))                         \
  X(primaryRetain, cuDevicePrimaryCtxRetain, (CUcontext*, CUdevice))                  \
  X(primaryRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice))                         \
  X(ctxPush, cuCtxPushCurrent_v2, (CUcontext))                                        \
  X(ctxPop, cuCtxPopCurrent_v2, (CUcontext*))                                         \
  X(moduleLoadData, cuModuleLoadData, (CUmodule*, const void*))                       \
  X(moduleUnload, cuModuleUnload, (CUmodule))                                         \
  X(moduleGetFunction, cuModuleGetFunction, (CUfunction*, CUmodule, const char*))     \
  X(funcSetAttribute, cuFuncSetAttribute, (CUfunction, int, int))                     \
  X(memAlloc, cuMemAlloc_v2, (CUdeviceptr*, size_t))                                  \
  X(memFree, cuMemFree_v2, (CUdeviceptr))                                             \
  X(memHostAlloc, cuMemHostAlloc, (void**, size_t, unsigned))                         \
  X(memFreeHost, cuMemFreeHost, (void*))                                              \
  X(copyToDevice, cuMemcpyHtoDAsync_v2, (CUdeviceptr, const void*, size_t, CUstream)) \
  X(copyToHost, cuMemcpyDtoHAsync_v2, (void*, CUdeviceptr, size_t, CUstream))         \
  X(setBytes, cuMemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream))        \
  X(streamCreate, cuStreamCreate, (CUstream*, unsigned))                              \
  X(streamDestroy, cuStreamDestroy_v2, (CUstream))                                    \
  X(streamSynchronize, cuStreamSynchronize, (CUstream))                               \
  X(eventCreate, cuEventCreate, (CUevent*, unsigned))                                 \
  X(eventDestroy, cuEventDestroy_v2, (CUevent))                                       \
  X(eventRecord, cuEventRecord, (CUevent, CUstream))                                  \
  X(eventSynchronize, cuEventSynchronize, (CUevent))                                  \
  X(launchKernel, cuLaunchKernel,                                                     \
    (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void**, void**))

// These may be missing (older drivers); the member is then null.
#define HPFORMER_CUDA_OPTIONAL(X)                                                               \
  X(memAllocAsync, cuMemAllocAsync, (CUdeviceptr*, size_t, CUstream))                           \
  X(memFreeAsync, cuMemFreeAsync, (CUdeviceptr, CUstream))                                      \
  X(beginCapture, cuStreamBeginCapture_v2, (CUstream, int))                                     \
  X(endCapture, cuStreamEndCapture, (CUstream, CUgraph*))                                       \
  X(graphInstantiate, cuGraphInstantiateWithFlags, (CUgraphExec*, CUgraph, unsigned long long)) \
  X(graphLaunch, cuGraphLaunch, (CUgraphExec, CUstream))                                        \
  X(graphDestroy, cuGraphDestroy, (CUgraph))                                                    \
  X(graphExecDestroy, cuGraphExecDestroy, (CUgraphExec))

struct Driver {
#define HPFORMER_CUDA_MEMBER(member, symbol, parameters) CUresult(*member) parameters = nullptr;
  HPFORMER_CUDA_FUNCTIONS(HPFORMER_CUDA_MEMBER)
  HPFORMER_CUDA_OPTIONAL(HPFORMER_CUDA_MEMBER)
#undef HPFORMER_CUDA_MEMBER
  bool hasGraphs() const {
    return beginCapture && endCapture && graphInstantiate && graphLaunch && graphDestroy && graphExecDestroy;
  }
};

// The process-wide table: opened and initialised on first use, again on later calls as long as that failed. Null with a
// reason when there is no usable driver. Nothing happens before the first call.
const Driver* driver(std::string* reason);

// Tests put a failing table in place of the real one (and null to go back). No device may be in use.
void replaceDriverForTests(const Driver* table);

// "cuda:0: cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY" with the right code: `memory` when memory ran out, else
// `device`.
Status driverError(const Driver& d, int ordinal, const char* call, CUresult result);

}  // namespace hpformer::cuda
