// The door: devices, models on one or all of them, and a request's way over slices and lanes.
#include "backend.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <new>
#include <thread>

#include "batch.h"
#include "binding/contract/segments.h"

namespace hpformer {
namespace cuda {
namespace {

// A slice is at most this much input and this many rows, so that copies of one slice overlap the work of the one
// before.
constexpr int64_t kSliceBytes = int64_t{8} << 20;
constexpr int64_t kSliceRows = int64_t{1} << 18;
constexpr int64_t kSliceSequences = 4096;
int64_t gSliceSequences = kSliceSequences;

int64_t inputBytes(const Spec& spec, const Feed<float>& feed) {
  return feed.steps * (spec.embedding == EmbeddingKind::features ? spec.features * 4 : 8);
}

// No exception leaves this folder.
template <typename Work>
Status attempt(Work work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return {StatusCode::memory, "cuda: the host ran out of memory"};
  } catch (const std::exception& error) {
    return {StatusCode::internal, error.what()};
  }
}

// One slice in flight.
struct Flight {
  Program program;
  Lane* lane = nullptr;
  bool complete = false;  // everything was queued: results may be read
};

class DeviceRun {
 public:
  DeviceRun(DeviceModel& model, const Request<float>& request, const Plan& plan, const CancelFlag& cancel)
      : model_(model), device_(model.device()), request_(request), plan_(plan), cancel_(cancel) {}

  // Sequences first … end - 1, in slices that alternate between up to two lanes.
  Status run(int64_t first, int64_t end) {
    if (Status s = device_.poisoned(); !s.ok()) return s;
    Device::Current current(device_);
    if (!current.status().ok()) return current.status();
    const Spec& spec = model_.spec();
    int64_t bytes = inputBytes(spec, request_.feed), rows = request_.feed.steps;
    if (spec.sequences == 2) {
      bytes += inputBytes(spec, request_.second);
      rows += request_.second.steps;
    }
    const int64_t size =
        std::clamp<int64_t>(std::min(kSliceBytes / std::max<int64_t>(1, bytes), kSliceRows / rows), 1, gSliceSequences);
    std::deque<Flight> flights;
    // An exception on the way must not keep lanes, nor free what a device still reads.
    Status status = attempt([&] { return launchAll(first, end, size, &flights); });
    while (!flights.empty()) {
      const Status landed = land(&flights);
      if (status.ok()) status = landed;
    }
    return status;
  }

 private:
  Status launchAll(int64_t first, int64_t end, int64_t size, std::deque<Flight>* flights) {
    for (int64_t at = first, count = 0; at < end; at += count) {
      count = alike(at, std::min(at + size, end));
      if (cancel_.load(std::memory_order_relaxed)) return {StatusCode::aborted, "aborted"};
      if (Status s = device_.poisoned(); !s.ok()) return s;
      // The second lane is taken only if it is free: holding one while waiting for another could deadlock with other
      // runs.
      const auto give = [this](Lane* lane) { device_.give(lane); };
      std::unique_ptr<Lane, decltype(give)> taken(nullptr, give);
      while (!taken) {
        Lane* lane = nullptr;
        if (flights->empty()) {
          if (Status s = device_.take(&lane); !s.ok()) return s;
        } else if (flights->size() > 1 || !(lane = device_.tryTake())) {
          if (Status s = land(flights); !s.ok()) return s;
        }
        taken.reset(lane);
      }
      flights->emplace_back();
      Flight& flight = flights->back();
      flight.lane = taken.release();
      if (Status s = launch({&request_, &plan_, at, count}, &flight); !s.ok()) return s;
      flight.complete = true;
    }
    return {};
  }

  // What the fused kernels are made of cannot be taken out of them; without it, one kernel per step.
  bool fused(int64_t b) const {
    const bool wanted = plan_.depthFirst && plan_.readoutPruning && plan_.zeroRowsClosedForm && !request_.trace;
    return wanted && takesFused(model_, request_, plan_, b);
  }

  // How many sequences from `at` on, below `end`, take the same path.
  int64_t alike(int64_t at, int64_t end) const {
    const bool path = fused(at);
    int64_t next = at + 1;
    while (next < end && fused(next) == path) ++next;
    return next - at;
  }

  Status launch(const Slice& slice, Flight* flight) {
    Program& program = flight->program;
    if (Status s = build(slice, &program); !s.ok()) return s;
    const size_t pinned = program.arena.inputBytes() + program.arena.outputBytes();
    if (Status s = device_.grow(*flight->lane, program.arena.bytes(), pinned); !s.ok()) return s;
    program.arena.place(flight->lane->arena.address(), static_cast<char*>(flight->lane->pinned));
    program.restart();
    if (Status s = build(slice, &program); !s.ok()) return s;
    return program.start(device_, *flight->lane);
  }

  Status build(const Slice& slice, Program* program) {
    const Request<float>& request = *slice.request;
    if (!fused(slice.first)) return buildUnfused(model_, slice, Wanted::everything, program);
    if (Status s = buildFused(model_, slice, program); !s.ok()) return s;
    // Attention weights come from the unfused kernels beside it: asking for them must not change the other outputs'
    // bits.
    const auto extras = [](const SequenceOutputs<float>& out) {
      return out.attention || out.segmentAttention || out.intraAttention;
    };
    if (extras(request.out) || extras(request.outSecond)) return buildUnfused(model_, slice, Wanted::extras, program);
    return {};
  }

  // Waits for the oldest slice and gives its lane back.
  Status land(std::deque<Flight>* flights) {
    Flight& flight = flights->front();
    const Status status = flight.program.finish(device_, *flight.lane, flight.complete);
    device_.give(flight.lane);
    flights->pop_front();
    return status;
  }

  DeviceModel& model_;
  Device& device_;
  const Request<float>& request_;
  const Plan& plan_;
  const CancelFlag& cancel_;
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(std::vector<std::shared_ptr<DeviceModel>> models) : models_(std::move(models)) {}

  Status run(const Request<float>& request, const Plan& plan, const CancelFlag& cancel) override {
    return attempt([&] {
      for (int64_t b = 0; b < request.batch; ++b) {
        if (request.out.segments) request.out.segments[b] = segments(request.feed, b);
        if (request.outSecond.segments) request.outSecond.segments[b] = segments(request.second, b);
      }
      return split(request, plan, cancel);
    });
  }

  int64_t packedBytes() const override {
    int64_t bytes = 0;
    for (const auto& model : models_) bytes += model->bytes();
    return bytes;
  }

 private:
  int32_t segments(const Feed<float>& feed, int64_t b) const {
    const Spec& spec = models_.front()->spec();
    Segments s;
    const int64_t own = spec.over == Over::valid ? feed.lengths[b] : feed.steps;
    return segmentsOf(spec, own, &s).ok() ? static_cast<int32_t>(s.count) : 0;
  }

  // Data parallelism: equal parts of the batch, one thread per further device.
  Status split(const Request<float>& request, const Plan& plan, const CancelFlag& cancel) {
    const int64_t parts = std::min<int64_t>(static_cast<int64_t>(models_.size()), request.batch);
    std::vector<Status> status(static_cast<size_t>(parts));
    const auto part = [&](int64_t i) {
      const int64_t first = request.batch * i / parts, end = request.batch * (i + 1) / parts;
      const size_t at = static_cast<size_t>(i);
      status[at] = attempt([&] { return DeviceRun(*models_[at], request, plan, cancel).run(first, end); });
    };
    {
      std::vector<std::jthread> threads;
      for (int64_t i = 1; i < parts; ++i) threads.emplace_back(part, i);
      if (parts > 0) part(0);
    }
    for (Status& s : status) {
      if (!s.ok()) return std::move(s);
    }
    return {};
  }

  std::vector<std::shared_ptr<DeviceModel>> models_;
};

}  // namespace

void sliceSequencesForTests(int64_t most) { gSliceSequences = most > 0 ? most : kSliceSequences; }

}  // namespace cuda

bool cudaCompiledIn() { return true; }

std::vector<CudaDeviceInfo> cudaDevices(std::string* reason) {
  std::vector<CudaDeviceInfo> devices;
  const int count = cuda::deviceCount(reason);
  const cuda::Driver* d = count > 0 ? cuda::driver(reason) : nullptr;
  for (int i = 0; d && i < count; ++i) {
    cuda::CUdevice handle = 0;
    char name[256] = {};
    int major = 0, minor = 0;
    size_t memory = 0;
    cuda::CUresult result = d->deviceGet(&handle, i);
    if (result == cuda::kSuccess) result = d->deviceGetName(name, sizeof(name), handle);
    if (result == cuda::kSuccess) result = d->deviceGetAttribute(&major, cuda::kAttributeMajor, handle);
    if (result == cuda::kSuccess) result = d->deviceGetAttribute(&minor, cuda::kAttributeMinor, handle);
    if (result == cuda::kSuccess) result = d->deviceTotalMem(&memory, handle);
    if (result != cuda::kSuccess) {
      *reason = cuda::driverError(*d, i, "asking for the device", result).message;
      return {};
    }
    devices.push_back({i, name, std::to_string(major) + "." + std::to_string(minor), static_cast<int64_t>(memory)});
  }
  return devices;
}

Status createCudaBackend(const Spec& spec, std::shared_ptr<const Weights> weights, const CudaOptions& options,
                         std::unique_ptr<Backend>* out) {
  return cuda::attempt([&]() -> Status {
    std::vector<int> ordinals = {options.device};
    if (options.device < 0) {
      std::string reason;
      const int count = cuda::deviceCount(&reason);
      if (count == 0) return {StatusCode::device, reason};
      ordinals.clear();
      for (int i = 0; i < count; ++i) ordinals.push_back(i);
    }
    std::vector<std::shared_ptr<cuda::DeviceModel>> models;
    for (int ordinal : ordinals) {
      std::shared_ptr<cuda::DeviceModel> model;
      const Status s = cuda::DeviceModel::acquire(
          spec, *weights, ordinal, operandPrecision(spec.hidden, options.precision), options.key, &model);
      if (!s.ok()) return s;
      models.push_back(std::move(model));
    }
    *out = std::make_unique<cuda::CudaBackend>(std::move(models));
    return {};
  });
}

}  // namespace hpformer
