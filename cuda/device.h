// One GPU as the process sees it: primary context, module, memory, lanes. Made by the first model on it, gone with the
// last.
#pragma once
#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "driver.h"

namespace hpformer::cuda {

class Device;

// Device memory with an owner. Freed on the device it came from, whatever thread drops it.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { release(); }
  // With a stream the memory comes from the driver's pool where there is one; the caller orders its use by that stream.
  Status allocate(Device& device, size_t bytes, CUstream stream = nullptr);
  void release();
  CUdeviceptr address() const { return address_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* at(size_t offset) const {
    return reinterpret_cast<T*>(address_ + offset);
  }

 private:
  Device* device_ = nullptr;
  CUdeviceptr address_ = 0;
  CUstream stream_ = nullptr;
  size_t bytes_ = 0;
};

// A stream with everything one batch in flight needs: an arena on the device, its pinned twin on the host, and the
// graphs captured over them. Kept between calls, grown when a larger batch comes.
struct Lane {
  CUstream stream = nullptr;
  DeviceBuffer arena;
  void* pinned = nullptr;
  size_t pinnedBytes = 0;
  std::map<std::string, CUgraphExec> graphs;  // by shape; valid for the present arena only
  std::map<std::string, int> seen;            // how often a shape came: the second time it is captured
  CUevent done = nullptr;                     // for batches that a thread waits for asleep
};

class Device : public std::enable_shared_from_this<Device> {
 public:
  // The process's object for this ordinal, made when there is none.
  static Status acquire(int ordinal, std::shared_ptr<Device>* out);
  ~Device();

  const Driver& driver() const { return driver_; }
  int ordinal() const { return ordinal_; }
  int multiprocessors() const { return multiprocessors_; }
  size_t sharedLimit() const { return sharedLimit_; }
  bool hasPools() const { return pools_; }

  // Turns a driver result into a status; one that leaves the context unusable poisons this device for good.
  Status check(CUresult result, const char* call);
  Status poisoned();

  // Makes the context current for a scope; check status() before use.
  class Current {
   public:
    explicit Current(Device& device);
    ~Current();
    const Status& status() const { return status_; }

   private:
    Device& device_;
    Status status_;
    bool pushed_ = false;
  };

  // Loads a module (modules.h) before its first kernel is asked for: what the driver cannot run is found out then.
  Status prepare(const std::string& module);
  // A kernel by name, allowed to use `sharedBytes` of dynamic shared memory. Needs a current context, as do all below.
  Status function(const std::string& name, size_t sharedBytes, CUfunction* out);

  // A free lane; waits while all are busy, or while no further one can be made. Return it with `give`.
  Status take(Lane** out);
  Lane* tryTake();  // null when none is free right now
  void give(Lane* lane);
  Status grow(Lane& lane, size_t arenaBytes, size_t pinnedBytes);

  // Upload of a fresh buffer, synchronous, on a stream of its own: who holds a lane may ask for it.
  Status upload(const void* data, size_t bytes, DeviceBuffer* out);

 private:
  Device(const Driver& driver, int ordinal) : driver_(driver), ordinal_(ordinal) {}
  Status open();
  Status load(const std::string& module, CUmodule* out);
  Status read(const std::string& module, CUmodule* out);
  Status addLane();
  void destroy(Lane& lane);
  void dropGraphs(Lane& lane);

  struct Function {
    CUfunction handle = nullptr;
    size_t shared = 0;
  };
  static constexpr size_t kLanes = 4;

  const Driver driver_;
  const int ordinal_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  std::map<std::string, CUmodule> modules_;
  int multiprocessors_ = 1;
  size_t sharedLimit_ = 0;
  bool pools_ = false;
  std::mutex mutex_;
  std::condition_variable freed_;
  std::map<std::string, Function> functions_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<Lane*> free_;
  std::mutex uploadMutex_;
  CUstream uploads_ = nullptr;
  std::mutex poisonMutex_;
  Status poison_;
};

// Ordinals, names and capabilities; or a reason.
int deviceCount(std::string* reason);

}  // namespace hpformer::cuda
