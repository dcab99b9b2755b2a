#include "device.h"

#include <algorithm>

#include "modules.h"

namespace hpformer::cuda {
namespace {

std::mutex gDevicesMutex;
std::map<int, std::weak_ptr<Device>> gDevices;

// Errors after which the context cannot be used any more (the driver's "sticky" ones): ECC, NVLink, the 7xx faults of
// kernels, a lost device. Out of memory, a refused launch configuration and the like are not among them.
bool isSticky(CUresult result) {
  return (result >= 214 && result <= 220) || result == 46 || result == 100 || result == 201 || result == 700 ||
         result == 702 || result == 709 || (result >= 714 && result <= 719) || result == 999;
}

size_t roundUp(size_t bytes) {
  constexpr size_t kGrain = size_t{64} << 10;
  return (bytes + kGrain - 1) / kGrain * kGrain;
}

}  // namespace

Status DeviceBuffer::allocate(Device& device, size_t bytes, CUstream stream) {
  release();
  if (Status s = device.poisoned(); !s.ok()) return s;
  const bool pool = stream && device.hasPools();
  CUdeviceptr address = 0;
  const size_t size = std::max<size_t>(bytes, 256);
  if (pool) {
    if (Status s = device.check(device.driver().memAllocAsync(&address, size, stream), "cuMemAllocAsync"); !s.ok())
      return s;
  } else {
    if (Status s = device.check(device.driver().memAlloc(&address, size), "cuMemAlloc"); !s.ok()) return s;
  }
  device_ = &device;
  address_ = address;
  stream_ = pool ? stream : nullptr;
  bytes_ = size;
  return {};
}

void DeviceBuffer::release() {
  if (!address_) return;
  // A failure here has no one to go to: the memory goes with the context. A poisoned device is told at its next use.
  Device::Current current(*device_);
  if (current.status().ok()) {
    if (stream_) {
      // A stream in a bad state does not take it; then the plain call does.
      if (!device_->check(device_->driver().memFreeAsync(address_, stream_), "cuMemFreeAsync").ok()) {
        (void)device_->driver().memFree(address_);
      }
    } else {
      (void)device_->check(device_->driver().memFree(address_), "cuMemFree");
    }
  }
  address_ = 0;
  bytes_ = 0;
}

Device::Current::Current(Device& device) : device_(device) {
  status_ = device.check(device.driver_.ctxPush(device.context_), "cuCtxPushCurrent");
  pushed_ = status_.ok();
}

Device::Current::~Current() {
  CUcontext previous = nullptr;
  if (pushed_) (void)device_.check(device_.driver_.ctxPop(&previous), "cuCtxPopCurrent");
}

Status Device::acquire(int ordinal, std::shared_ptr<Device>* out) {
  std::string reason;
  const Driver* table = cuda::driver(&reason);
  if (!table) return {StatusCode::device, reason};
  std::lock_guard lock(gDevicesMutex);
  if (std::shared_ptr<Device> known = gDevices[ordinal].lock()) {
    if (Status s = known->poisoned(); !s.ok()) return s;
    *out = std::move(known);
    return {};
  }
  std::shared_ptr<Device> fresh(new Device(*table, ordinal));
  if (Status s = fresh->open(); !s.ok()) return s;
  gDevices[ordinal] = fresh;
  *out = std::move(fresh);
  return {};
}

Status Device::open() {
  int count = 0;
  if (Status s = check(driver_.deviceGetCount(&count), "cuDeviceGetCount"); !s.ok()) return s;
  if (ordinal_ < 0 || ordinal_ >= count) {
    return {StatusCode::device, "cuda:" + std::to_string(ordinal_) + ": expected a device of 0.." +
                                    std::to_string(count - 1) + ", there " +
                                    (count == 1 ? "is 1" : "are " + std::to_string(count))};
  }
  if (Status s = check(driver_.deviceGet(&device_, ordinal_), "cuDeviceGet"); !s.ok()) return s;
  int shared = 0, pools = 0, major = 0;
  const std::pair<int*, int> attributes[] = {{&multiprocessors_, kAttributeMultiprocessors},
                                             {&shared, kAttributeSharedMemoryOptIn},
                                             {&pools, kAttributeMemoryPools},
                                             {&major, kAttributeMajor}};
  for (auto [value, attribute] : attributes) {
    if (Status s = check(driver_.deviceGetAttribute(value, attribute, device_), "cuDeviceGetAttribute"); !s.ok())
      return s;
  }
  if (major < 8) {
    return {StatusCode::device, "cuda:" + std::to_string(ordinal_) +
                                    ": expected compute capability 8.0 or newer, got " + std::to_string(major) + ".x"};
  }
  sharedLimit_ = static_cast<size_t>(shared);
  pools_ = pools && driver_.memAllocAsync && driver_.memFreeAsync;
  if (Status s = check(driver_.primaryRetain(&context_, device_), "cuDevicePrimaryCtxRetain"); !s.ok()) {
    context_ = nullptr;
    return s;
  }
  Current current(*this);
  if (!current.status().ok()) return current.status();
  return addLane();
}

Device::~Device() {
  if (!context_) return;
  {
    Current current(*this);
    for (auto& lane : lanes_) destroy(*lane);
    for (const auto& [name, module] : modules_) {
      if (current.status().ok()) (void)driver_.moduleUnload(module);
    }
  }
  (void)driver_.primaryRelease(device_);
}

Status Device::check(CUresult result, const char* call) {
  if (result == kSuccess) return {};
  Status status = driverError(driver_, ordinal_, call, result);
  if (isSticky(result)) {
    std::lock_guard lock(poisonMutex_);
    if (poison_.ok()) {
      poison_ = {StatusCode::device,
                 status.message + "; the device stays unusable until every model on it is disposed"};
    }
  }
  return status;
}

Status Device::poisoned() {
  std::lock_guard lock(poisonMutex_);
  return poison_;
}

Status Device::function(const std::string& name, size_t sharedBytes, CUfunction* out) {
  std::lock_guard lock(mutex_);
  Function& f = functions_[name];
  if (!f.handle) {
    const std::string symbol = "hpformer_" + name;
    CUmodule module = nullptr;
    if (Status s = load(moduleOf(name), &module); !s.ok()) return s;
    if (Status s = check(driver_.moduleGetFunction(&f.handle, module, symbol.c_str()), "cuModuleGetFunction");
        !s.ok()) {
      f.handle = nullptr;
      return s;
    }
  }
  if (sharedBytes > std::max(f.shared, size_t{48} << 10)) {
    const CUresult result = driver_.funcSetAttribute(f.handle, kFunctionDynamicShared, static_cast<int>(sharedBytes));
    if (Status s = check(result, "cuFuncSetAttribute"); !s.ok()) return s;
    f.shared = sharedBytes;
  }
  *out = f.handle;
  return {};
}

Status Device::load(const std::string& name, CUmodule* out) {
  auto known = modules_.find(name);
  if (known == modules_.end()) {
    const void* fatbin = fatbinOf(name);
    if (!fatbin) return {StatusCode::internal, "no CUDA module " + name};
    CUmodule module = nullptr;
    if (Status s = check(driver_.moduleLoadData(&module, fatbin), "cuModuleLoadData"); !s.ok()) return s;
    known = modules_.emplace(name, module).first;
  }
  *out = known->second;
  return {};
}

Status Device::addLane() {
  auto lane = std::make_unique<Lane>();
  if (Status s = check(driver_.streamCreate(&lane->stream, kStreamNonBlocking), "cuStreamCreate"); !s.ok()) return s;
  free_.push_back(lane.get());
  lanes_.push_back(std::move(lane));
  return {};
}

Status Device::take(Lane** out) {
  std::unique_lock lock(mutex_);
  if (free_.empty() && lanes_.size() < kLanes) {
    if (Status s = addLane(); !s.ok()) return s;
  }
  freed_.wait(lock, [&] { return !free_.empty(); });
  *out = free_.back();
  free_.pop_back();
  return {};
}

Lane* Device::tryTake() {
  std::unique_lock lock(mutex_);
  if (free_.empty() && lanes_.size() < kLanes && !addLane().ok()) return nullptr;
  if (free_.empty()) return nullptr;
  Lane* lane = free_.back();
  free_.pop_back();
  return lane;
}

void Device::give(Lane* lane) {
  {
    std::lock_guard lock(mutex_);
    free_.push_back(lane);
  }
  freed_.notify_one();
}

Status Device::grow(Lane& lane, size_t arenaBytes, size_t pinnedBytes) {
  if (lane.arena.bytes() < arenaBytes) {
    dropGraphs(lane);
    const size_t bytes = roundUp(arenaBytes);
    if (Status s = lane.arena.allocate(*this, bytes, lane.stream); !s.ok()) return s;
  }
  if (lane.pinnedBytes < pinnedBytes) {
    dropGraphs(lane);
    if (lane.pinned) (void)check(driver_.memFreeHost(lane.pinned), "cuMemFreeHost");
    lane.pinned = nullptr;
    lane.pinnedBytes = 0;
    const size_t bytes = roundUp(pinnedBytes);
    if (Status s = check(driver_.memHostAlloc(&lane.pinned, bytes, 0), "cuMemHostAlloc"); !s.ok()) {
      lane.pinned = nullptr;
      return s;
    }
    lane.pinnedBytes = bytes;
  }
  return {};
}

void Device::dropGraphs(Lane& lane) {
  for (auto& [shape, graph] : lane.graphs) (void)check(driver_.graphExecDestroy(graph), "cuGraphExecDestroy");
  lane.graphs.clear();
  lane.seen.clear();
}

void Device::destroy(Lane& lane) {
  (void)driver_.streamSynchronize(lane.stream);
  dropGraphs(lane);
  lane.arena.release();
  if (lane.pinned) (void)driver_.memFreeHost(lane.pinned);
  (void)driver_.streamDestroy(lane.stream);
}

Status Device::upload(const void* data, size_t bytes, DeviceBuffer* out) {
  if (Status s = out->allocate(*this, bytes); !s.ok()) return s;
  Lane* lane = nullptr;
  if (Status s = take(&lane); !s.ok()) return s;
  Status status = check(driver_.copyToDevice(out->address(), data, bytes, lane->stream), "cuMemcpyHtoDAsync");
  if (status.ok()) status = check(driver_.streamSynchronize(lane->stream), "cuStreamSynchronize");
  give(lane);
  return status;
}

int deviceCount(std::string* reason) {
  const Driver* d = driver(reason);
  if (!d) return 0;
  int count = 0;
  const CUresult result = d->deviceGetCount(&count);
  if (result != kSuccess) {
    *reason = driverError(*d, 0, "cuDeviceGetCount", result).message;
    return 0;
  }
  if (count == 0) *reason = "the CUDA driver reports no device";
  return count;
}

}  // namespace hpformer::cuda
