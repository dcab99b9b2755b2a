#include "device.h"

#include <algorithm>

#include "modules.h"

namespace hpformer::cuda {
namespace {

std::mutex gDevicesMutex;
std::map<int, std::weak_ptr<Device>> gDevices;

// Errors after which the context cannot be used any more (the driver's "sticky" ones). Out of memory, a refused launch
// configuration, code that the driver cannot read and the like are not among them.
bool isSticky(CUresult result) {
  switch (result) {
    case 4:    // the driver is shutting down
    case 46:   // the device is not available
    case 100:  // no device
    case 201:  // invalid context
    case 214:  // ECC
    case 220:  // NVLink
    case 226:  // contained memory error
    case 700:  // illegal address
    case 702:  // time out
    case 709:  // context destroyed
    case 710:  // assertion in a kernel
    case 714:  // hardware stack
    case 715:  // illegal instruction
    case 716:  // misaligned address
    case 717:  // address space
    case 718:  // program counter
    case 719:  // launch failed
    case 999:  // unknown
      return true;
    default: return false;
  }
}

// Whether the driver refused a module because it is of another age or for another device.
bool isUnreadable(CUresult result) {
  return result == 200 || result == 209 || result == 218 || (result >= 221 && result <= 224);
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
  lanes_.reserve(kLanes);
  free_.reserve(kLanes);  // giving a lane back never needs memory
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
  if (Status s = check(driver_.streamCreate(&uploads_, kStreamNonBlocking), "cuStreamCreate"); !s.ok()) return s;
  return addLane();
}

Device::~Device() {
  if (!context_) return;
  {
    Current current(*this);
    for (auto& lane : lanes_) destroy(*lane);
    if (uploads_) (void)driver_.streamDestroy(uploads_);
    for (const auto& [name, module] : modules_) {
      if (module && current.status().ok()) (void)driver_.moduleUnload(module);
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

Status Device::prepare(const std::string& module) {
  std::lock_guard lock(mutex_);
  CUmodule loaded = nullptr;
  return load(module, &loaded);
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

Status Device::read(const std::string& name, CUmodule* out) {
  const void* fatbin = fatbinOf(name);
  if (!fatbin) return {StatusCode::internal, "no CUDA module " + name};
  const CUresult result = driver_.moduleLoadData(out, fatbin);
  Status s = check(result, "cuModuleLoadData");
  int version = 0;
  if (!s.ok() && isUnreadable(result) && driver_.driverGetVersion(&version) == kSuccess) {
    s.message += ": the kernels need a newer driver than this one for CUDA " + std::to_string(version / 1000) + "." +
                 std::to_string(version % 1000 / 10);
  }
  return s;
}

Status Device::load(const std::string& name, CUmodule* out) {
  CUmodule& module = modules_[name];  // first the place, so that no module is lost
  if (!module) {
    if (Status s = read(name, &module); !s.ok()) return module = nullptr, s;
  }
  *out = module;
  return {};
}

Status Device::addLane() {
  auto lane = std::make_unique<Lane>();
  if (Status s = check(driver_.streamCreate(&lane->stream, kStreamNonBlocking), "cuStreamCreate"); !s.ok()) return s;
  const CUresult result = driver_.eventCreate(&lane->done, kEventBlockingSync | kEventDisableTiming);
  if (Status s = check(result, "cuEventCreate"); !s.ok()) {
    (void)driver_.streamDestroy(lane->stream);
    return s;
  }
  free_.push_back(lane.get());
  lanes_.push_back(std::move(lane));
  return {};
}

Status Device::take(Lane** out) {
  std::unique_lock lock(mutex_);
  if (free_.empty() && lanes_.size() < kLanes) {
    // Without another lane a run waits for one of those that there are.
    if (Status s = addLane(); !s.ok() && (lanes_.empty() || !poisoned().ok())) return s;
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
  for (auto& [shape, graph] : lane.graphs) {
    if (graph) (void)check(driver_.graphExecDestroy(graph), "cuGraphExecDestroy");
  }
  lane.graphs.clear();
  lane.seen.clear();
}

void Device::destroy(Lane& lane) {
  (void)driver_.streamSynchronize(lane.stream);
  dropGraphs(lane);
  lane.arena.release();
  if (lane.pinned) (void)driver_.memFreeHost(lane.pinned);
  (void)driver_.eventDestroy(lane.done);
  (void)driver_.streamDestroy(lane.stream);
}

Status Device::upload(const void* data, size_t bytes, DeviceBuffer* out) {
  if (Status s = out->allocate(*this, bytes); !s.ok()) return s;
  std::lock_guard lock(uploadMutex_);
  if (Status s = check(driver_.copyToDevice(out->address(), data, bytes, uploads_), "cuMemcpyHtoDAsync"); !s.ok())
    return s;
  return check(driver_.streamSynchronize(uploads_), "cuStreamSynchronize");
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
