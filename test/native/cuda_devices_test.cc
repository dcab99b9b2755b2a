// cuda:all: a batch split over several devices. The devices are copies of the one that the driver library offers: a
// table of wrappers hands out a context for each, notes which device every stream, module and allocation belongs to,
// and lets one device break. Exits with 77 where there is no driver library.
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "cuda/driver.h"
#include "cuda_cases.h"
#include "cuda_check.h"

using namespace hpformer;
using namespace hpformer::testing;
namespace cuda = hpformer::cuda;

namespace {

// ---- several devices out of one ----

constexpr int kDevices = 3;
cuda::Driver gReal;
cuda::CUcontext gContext = nullptr;                           // the real one; devices get stand-ins
std::mutex gMutex;                                            // all below
std::map<const void*, int> gOwner;                            // streams, modules, functions
std::map<cuda::CUdeviceptr, std::pair<size_t, int>> gMemory;  // by address: bytes, device
std::map<std::string, int64_t> gLive;                         // objects made minus objects freed
int64_t gLaunches[kDevices] = {}, gMisplaced = 0;
std::atomic<int> gBroken{-1}, gFull{-1};  // launches on one fail for good; memory of one is all taken
thread_local std::vector<int> tCurrent;

int current() { return tCurrent.empty() ? -1 : tCurrent.back(); }

void own(const void* thing, const char* kind) {
  std::lock_guard lock(gMutex);
  gOwner[thing] = current();
  ++gLive[kind];
}
void drop(const void* thing, const char* kind) {
  std::lock_guard lock(gMutex);
  gMisplaced += gOwner[thing] != current();
  --gLive[kind];
}
// Work on `thing` (and, unless 0, on device memory) must happen where both were made.
void touch(const void* thing, cuda::CUdeviceptr address = 0) {
  std::lock_guard lock(gMutex);
  gMisplaced += gOwner[thing] != current();
  if (address == 0) return;
  auto block = gMemory.upper_bound(address);
  gMisplaced += block == gMemory.begin() || (--block)->second.second != current() ||
                address >= block->first + block->second.first;
}
void allocated(cuda::CUdeviceptr address, size_t bytes) {
  std::lock_guard lock(gMutex);
  gMemory[address] = {bytes, current()};
}
void freed(cuda::CUdeviceptr address) {
  std::lock_guard lock(gMutex);
  gMisplaced += gMemory.count(address) == 0 || gMemory[address].second != current();
  gMemory.erase(address);
}

cuda::Driver several() {
  using namespace cuda;
  Driver d = gReal;
  d.deviceGetCount = [](int* count) { return *count = kDevices, kSuccess; };
  d.deviceGet = [](CUdevice* device, int i) {
    if (i < 0 || i >= kDevices) return CUresult{101};
    return *device = i, kSuccess;
  };
  d.deviceGetName = [](char* name, int size, CUdevice) { return gReal.deviceGetName(name, size, 0); };
  d.deviceGetAttribute = [](int* value, int what, CUdevice) { return gReal.deviceGetAttribute(value, what, 0); };
  d.deviceTotalMem = [](size_t* bytes, CUdevice) { return gReal.deviceTotalMem(bytes, 0); };
  d.primaryRetain = [](CUcontext* context, CUdevice device) {
    std::lock_guard lock(gMutex);
    ++gLive["contexts"];
    *context = reinterpret_cast<CUcontext>(static_cast<uintptr_t>(device + 1));
    return gReal.primaryRetain(&gContext, 0);
  };
  d.primaryRelease = [](CUdevice) {
    std::lock_guard lock(gMutex);
    --gLive["contexts"];
    return gReal.primaryRelease(0);
  };
  d.ctxPush = [](CUcontext context) {
    tCurrent.push_back(static_cast<int>(reinterpret_cast<uintptr_t>(context)) - 1);
    return gReal.ctxPush(gContext);
  };
  d.ctxPop = [](CUcontext* context) {
    tCurrent.pop_back();
    return gReal.ctxPop(context);
  };
  d.streamCreate = [](CUstream* stream, unsigned flags) {
    const CUresult result = gReal.streamCreate(stream, flags);
    own(*stream, "streams");
    return result;
  };
  d.streamDestroy = [](CUstream stream) { return drop(stream, "streams"), gReal.streamDestroy(stream); };
  d.streamSynchronize = [](CUstream stream) { return touch(stream), gReal.streamSynchronize(stream); };
  d.moduleLoadData = [](CUmodule* module, const void* data) {
    const CUresult result = gReal.moduleLoadData(module, data);
    own(*module, "modules");
    return result;
  };
  d.moduleUnload = [](CUmodule module) { return drop(module, "modules"), gReal.moduleUnload(module); };
  d.moduleGetFunction = [](CUfunction* function, CUmodule module, const char* name) {
    touch(module);
    const CUresult result = gReal.moduleGetFunction(function, module, name);
    std::lock_guard lock(gMutex);
    gOwner[*function] = current();
    return result;
  };
  d.memAlloc = [](CUdeviceptr* address, size_t bytes) {
    if (gFull == current()) return kOutOfMemory;
    const CUresult result = gReal.memAlloc(address, bytes);
    return allocated(*address, bytes), result;
  };
  d.memFree = [](CUdeviceptr address) { return freed(address), gReal.memFree(address); };
  d.memAllocAsync = [](CUdeviceptr* address, size_t bytes, CUstream stream) {
    if (gFull == current()) return kOutOfMemory;
    touch(stream);
    const CUresult result = gReal.memAllocAsync(address, bytes, stream);
    return allocated(*address, bytes), result;
  };
  d.memFreeAsync = [](CUdeviceptr address, CUstream stream) {
    touch(stream);
    return freed(address), gReal.memFreeAsync(address, stream);
  };
  d.copyToDevice = [](CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    return touch(stream, to), gReal.copyToDevice(to, from, bytes, stream);
  };
  d.copyToHost = [](void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return touch(stream, from), gReal.copyToHost(to, from, bytes, stream);
  };
  d.setBytes = [](CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    return touch(stream, to), gReal.setBytes(to, value, bytes, stream);
  };
  d.launchKernel = [](CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, CUstream stream, void** arguments, void** extra) {
    touch(stream);
    touch(f);
    if (gBroken == current()) return CUresult{719};
    {
      std::lock_guard lock(gMutex);
      ++gLaunches[current()];
    }
    return gReal.launchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra);
  };
  return d;
}

void nothingLeft(const std::string& when) {
  std::lock_guard lock(gMutex);
  for (const auto& [kind, live] : gLive) expect(live == 0, when + ": " + std::to_string(live) + " " + kind + " left");
  expect(gMemory.empty(), when + ": " + std::to_string(gMemory.size()) + " blocks of memory left");
  expect(gMisplaced == 0, when + ": " + std::to_string(gMisplaced) + " calls with another device's things");
}

// ---- models ----

struct Model {
  Spec spec;
  std::shared_ptr<const Weights> weights;
  Precision precision;
  Plan plan;

  Model(uint64_t seed, Readout readout, int64_t hidden, Precision p) : precision(p) {
    Random r(seed);
    spec.hidden = hidden;
    spec.heads = 8;
    spec.layers = 2;
    spec.labels = 3;
    spec.readout = readout;
    spec.over = Over::valid;
    spec.link = Link::softmax;
    spec.positions = PositionKind::interleaved;
    if (readout == Readout::mean) {
      spec.embedding = EmbeddingKind::tokens;
      spec.vocabulary = 30;
      spec.padding = 1;
    } else {
      spec.features = 20;
    }
    weights = std::make_shared<const Weights>(randomWeights(spec, r));
    plan.precision = precision;
  }
  Status load(int device, std::unique_ptr<Backend>* out) const {
    return testing::load(spec, weights, precision, out, "", device);
  }
  Status run(Backend& backend, const Batch& batch, std::vector<float>* logits) const {
    Run<float> run(spec, batch, false, false);
    Status s = backend.run(run.request, plan, kNever);
    *logits = std::move(run.logits);
    return s;
  }
};

// All devices against one: the same bits, every device at work.
void split(const Model& model, const std::string& name) {
  std::unique_ptr<Backend> one, all;
  Status s = model.load(0, &one);
  if (s.ok()) s = model.load(-1, &all);
  expect(s.ok(), name + ": " + s.message);
  if (!s.ok()) return;
  expect(all->packedBytes() == kDevices * one->packedBytes(), name + ": weights are on every device");
  Random r(5);
  for (const int64_t size : {1, 2, 7, 19}) {
    const Batch batch = randomBatch(model.spec, r, size, 40, 0);
    std::vector<float> want, got;
    s = model.run(*one, batch, &want);
    expect(s.ok(), name + ": " + s.message);
    std::fill(std::begin(gLaunches), std::end(gLaunches), 0);
    for (int i = 0; i < 2; ++i) {
      s = model.run(*all, batch, &got);
      expect(s.ok() && sameBits(want, got), name + ": other bits on all devices, batch " + std::to_string(size));
    }
    for (int64_t device = 0; device < kDevices; ++device) {
      expect((gLaunches[device] > 0) == (device < size),
             name + ": device " + std::to_string(device) + " made " + std::to_string(gLaunches[device]) + " launches");
    }
  }
  const Batch batch = randomBatch(model.spec, r, 9, 30, 0);
  std::vector<float> want;
  expect(model.run(*one, batch, &want).ok(), name + ": run on one device");
  std::vector<std::vector<float>> results(4);
  {
    std::vector<std::jthread> threads;
    for (auto& result : results) {
      threads.emplace_back([&] { (void)model.run(*all, batch, &result); });
    }
  }
  for (const auto& result : results) expect(sameBits(want, result), name + ": other bits beside other runs");
}

// One device breaks: runs on all say so and name it, models on the others go on, a fresh model works.
void poison(const Model& model) {
  Random r(11);
  const Batch batch = randomBatch(model.spec, r, 6, 40, 0);
  std::vector<float> want, got;
  {
    std::unique_ptr<Backend> all, zero, two;
    expect(model.load(-1, &all).ok() && model.load(0, &zero).ok() && model.load(2, &two).ok(), "load before breaking");
    expect(model.run(*all, batch, &want).ok(), "run before breaking");
    gBroken = 1;
    Status s = model.run(*all, batch, &got);
    gBroken = -1;
    expect(s.code == StatusCode::device && s.message.find("cuda:1") != std::string::npos,
           "a broken device is reported by name: " + s.message);
    s = model.run(*all, batch, &got);
    expect(s.code == StatusCode::device && s.message.find("unusable") != std::string::npos,
           "it stays unusable: " + s.message);
    for (Backend* other : {zero.get(), two.get()}) {
      s = model.run(*other, batch, &got);
      expect(s.ok() && sameBits(want, got), "other devices go on: " + s.message);
    }
    std::unique_ptr<Backend> more;
    expect(model.load(-1, &more).code == StatusCode::device, "no new model on all devices while one is broken");
    expect(model.load(2, &more).ok(), "but on another one");
  }
  nothingLeft("after breaking");
  std::unique_ptr<Backend> fresh;
  Status s = model.load(-1, &fresh);
  if (s.ok()) s = model.run(*fresh, batch, &got);
  expect(s.ok() && sameBits(want, got), "all devices again, once the models are gone: " + s.message);
}

// A device without memory for the weights: an error, and nothing stays on the devices that had some.
void full(const Model& model) {
  std::unique_ptr<Backend> all;
  gFull = kDevices - 1;
  const Status s = model.load(-1, &all);
  gFull = -1;
  expect(s.code == StatusCode::memory && s.message.find("cuda:2") != std::string::npos, "no memory: " + s.message);
  nothingLeft("a load that failed on the last device");
}

}  // namespace

int main() {
  if (const int skip = skipped()) return skip;
  std::string reason;
  gReal = *cuda::driver(&reason);
  const cuda::Driver table = several();
  cuda::replaceDriverForTests(&table);
  const auto found = cudaDevices(&reason);
  expect(found.size() == kDevices && found.back().ordinal == kDevices - 1, "three devices are listed");

  // Width 16 takes the unfused path.
  split(Model(1, Readout::step, 64, Precision::bfloat16), "step, bfloat16");
  nothingLeft("step");
  split(Model(2, Readout::steps, 64, Precision::float32), "steps, float32");
  split(Model(3, Readout::mean, 64, Precision::bfloat16), "mean, bfloat16");
  split(Model(4, Readout::step, 16, Precision::float32), "unfused");
  nothingLeft("all models");
  poison(Model(1, Readout::step, 64, Precision::float32));
  full(Model(1, Readout::step, 64, Precision::float32));
  std::unique_ptr<Backend> none;
  const Status s = Model(1, Readout::step, 64, Precision::float32).load(kDevices, &none);
  expect(s.code == StatusCode::device && s.message.find("0..2") != std::string::npos, "no such device: " + s.message);
  nothingLeft("the end");
  cuda::replaceDriverForTests(nullptr);
  return result();
}
