// The host side under drivers that lack something, refuse something or come from another age, and under many threads at
// once. The odd driver is the real one (HPFORMER_CUDA_LIBRARY) with entries replaced. Exits with 77 where there is
// none.
#include <unistd.h>

#include <atomic>
#include <thread>

#include "cuda/program.h"
#include "cuda_cases.h"
#include "cuda_check.h"

using namespace hpformer;
using namespace hpformer::testing;
namespace cuda = hpformer::cuda;

namespace {

cuda::Driver gReal;
std::atomic<int> gError{0}, gCaptures{0}, gStreams{0};

struct Model {
  Spec spec;
  std::shared_ptr<const Weights> weights;
  Batch batch;
  std::vector<float> expected;

  explicit Model(int64_t hidden, int64_t steps = 40) {
    Random r(3);
    spec.features = 20;
    spec.hidden = hidden;
    spec.heads = 8;
    spec.layers = 1;
    spec.labels = 2;
    spec.readout = Readout::mean;
    spec.positions = PositionKind::interleaved;
    weights = std::make_shared<const Weights>(randomWeights(spec, r));
    batch = randomBatch(spec, r, 3, steps, 0);
  }
  Status load(std::unique_ptr<Backend>* out) const { return testing::load(spec, weights, Precision::float32, out); }
  Status run(Backend& backend, std::vector<float>* logits) const {
    Run<float> run(spec, batch, false, false);
    Status s = backend.run(run.request, {}, kNever);
    *logits = std::move(run.logits);
    return s;
  }
  // Loads and runs `times`; every run must give the expected bits.
  void works(const std::string& what, int times = 3) {
    std::unique_ptr<Backend> backend;
    Status s = load(&backend);
    for (int i = 0; s.ok() && i < times; ++i) {
      std::vector<float> got;
      s = run(*backend, &got);
      if (expected.empty()) expected = got;
      expect(!s.ok() || sameBits(got, expected), what + ": other bits");
    }
    expect(s.ok(), what + ": " + s.message);
  }
};

// `change`s the driver for the time of `body`.
template <typename Change, typename Body>
void with(Change change, Body body) {
  cuda::Driver table = gReal;
  change(table);
  cuda::replaceDriverForTests(&table);
  body();
  cuda::replaceDriverForTests(nullptr);
}

void lacking(Model& model) {
  with(
      [](cuda::Driver& d) {
#define HPFORMER_TEST_NONE(member, symbol, parameters) d.member = nullptr;
        HPFORMER_CUDA_OPTIONAL(HPFORMER_TEST_NONE)
      },
      [&] { model.works("no graphs, no memory pool"); });
  with([](cuda::Driver& d) { d.memFreeAsync = nullptr; }, [&] { model.works("half a memory pool"); });
  with(
      [](cuda::Driver& d) {
        d.deviceGetAttribute = [](int* value, int what, cuda::CUdevice device) {
          const cuda::CUresult result = gReal.deviceGetAttribute(value, what, device);
          if (what == cuda::kAttributeMemoryPools) *value = 0;
          return result;
        };
        d.memAllocAsync = [](cuda::CUdeviceptr*, size_t, cuda::CUstream) { return cuda::CUresult{801}; };
      },
      [&] { model.works("no memory pool on this device"); });
}

// What cannot be captured is run as it is, and is not captured again and again.
void capturing(Model& model) {
  with([](cuda::Driver& d) { d.beginCapture = [](cuda::CUstream, int) { return ++gCaptures, cuda::CUresult{900}; }; },
       [&] { model.works("capture refused", 6); });
  expect(gCaptures == 1, "capture refused: tried " + std::to_string(gCaptures) + " times");
  with(
      [](cuda::Driver& d) {
        d.graphInstantiate = [](cuda::CUgraphExec*, cuda::CUgraph, unsigned long long) { return cuda::CUresult{801}; };
      },
      [&] { model.works("graphs refused", 4); });
  with(
      [](cuda::Driver& d) {
        d.endCapture = [](cuda::CUstream stream, cuda::CUgraph* graph) {
          const cuda::CUresult result = gReal.endCapture(stream, graph);
          if (result != cuda::kSuccess) return result;
          (void)gReal.graphDestroy(*graph);
          *graph = nullptr;
          return cuda::CUresult{901};
        };
      },
      [&] { model.works("capture invalidated", 4); });
}

// Kernels of another age than the driver: the model does not load, and says why.
void unreadable(const Model& model) {
  for (const int error : {200, 209, 218, 222}) {
    gError = error;
    with(
        [](cuda::Driver& d) {
          d.moduleLoadData = [](cuda::CUmodule*, const void*) { return cuda::CUresult{gError}; };
          d.driverGetVersion = [](int* version) { return *version = 11040, cuda::kSuccess; };
        },
        [&] {
          std::unique_ptr<Backend> backend;
          const Status s = model.load(&backend);
          const std::string what = "kernels refused with " + std::to_string(error) + ": ";
          expect(s.code == StatusCode::device, what + "code " + std::to_string(static_cast<int>(s.code)));
          expect(s.message.find("CUDA 11.4") != std::string::npos, what + s.message);
        });
  }
}

// Which errors of a run leave the device unusable to those who come after.
void sticky(Model& model) {
  for (const auto& [error, poisons] : {std::pair{4, true},
                                       {214, true},
                                       {220, true},
                                       {700, true},
                                       {710, true},
                                       {719, true},
                                       {999, true},
                                       {1, false},
                                       {215, false},
                                       {218, false},
                                       {701, false}}) {
    gError = 0;
    with(
        [](cuda::Driver& d) {
          d.launchKernel = [](cuda::CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                              unsigned bz, unsigned shared, cuda::CUstream stream, void** arguments, void** extra) {
            if (gError != 0) return cuda::CUresult{gError};
            return gReal.launchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra);
          };
        },
        [&] {
          std::unique_ptr<Backend> backend, other;
          expect(model.load(&backend).ok(), "load");
          std::vector<float> got;
          gError = error;
          const std::string what = "error " + std::to_string(error);
          expect(!model.run(*backend, &got).ok(), what + " is not reported");
          gError = 0;
          expect(model.run(*backend, &got).ok() != poisons, what + ": a later run");
          expect(model.load(&other).ok() != poisons, what + ": a later load");
        });
    model.works("after error " + std::to_string(error), 1);
  }
}

// A first run of every thread at once, all with a table of positions to upload; then all again while the device has a
// single lane to give.
void crowd(const Model& model, int threads, const std::string& what) {
  std::unique_ptr<Backend> backend;
  const Status s = model.load(&backend);
  expect(s.ok(), what + ": " + s.message);
  if (!s.ok()) return;
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> all;
    for (int i = 0; i < threads; ++i) {
      all.emplace_back([&] {
        std::vector<float> got;
        const Status status = model.run(*backend, &got);
        good += status.ok() && sameBits(got, model.expected);
        if (!status.ok()) std::printf("%s: %s\n", what.c_str(), status.message.c_str());
      });
    }
  }
  expect(good == threads, what + ": " + std::to_string(good) + " of " + std::to_string(threads) + " runs");
}

void crowds(Model& model) {
  for (int i = 0; i < 3; ++i) crowd(model, 12, "12 first runs at once");
  with(
      [](cuda::Driver& d) {
        gStreams = 0;
        d.streamCreate = [](cuda::CUstream* stream, unsigned flags) {
          return ++gStreams > 2 ? cuda::kOutOfMemory : gReal.streamCreate(stream, flags);
        };
      },
      [&] { crowd(model, 8, "no further stream"); });
}

struct Launch {
  int64_t height = 0;
  cuda::DenseParams p{};
};
std::vector<Launch> gDense;

// A product of more rows than a grid is high, 65,535 blocks of 64, is launched in parts. Nothing is computed: no such
// memory is there.
void highProducts() {
  constexpr int64_t kMany = 2 * 65535 * 64 + 1, kWidth = 3, kDepth = 8, kSplit = 5;
  const auto at = [](cuda::CUdeviceptr address) { return reinterpret_cast<float*>(address); };
  float *a = at(1 << 20), *b = at(2 << 20), *out = at(3 << 20);
  gDense.clear();
  with(
      [](cuda::Driver& d) {
        d.launchKernel = [](cuda::CUfunction, unsigned, unsigned gy, unsigned, unsigned, unsigned, unsigned, unsigned,
                            cuda::CUstream, void** arguments, void**) {
          Launch launch;
          launch.height = gy;
          std::memcpy(&launch.p, arguments[0], sizeof(launch.p));
          gDense.push_back(launch);
          return cuda::kSuccess;
        };
      },
      [&] {
        std::shared_ptr<cuda::Device> device;
        expect(cuda::Device::acquire(0, &device).ok(), "a device");
        cuda::Device::Current current(*device);
        cuda::Lane* lane = nullptr;
        expect(device->take(&lane).ok(), "a lane");
        cuda::Program program;
        program.dense(a, b, kSplit, at(4 << 20), nullptr, kMany, kWidth, kDepth, cuda::Act::linear, out);
        const Status s = program.repeat(*device, *lane);
        expect(s.ok(), "a high product: " + s.message);
        device->give(lane);
      });
  int64_t row = 0;
  for (const Launch& launch : gDense) {
    const cuda::DenseParams& p = launch.p;
    expect(launch.height <= 65535 && launch.height == (p.m + 63) / 64, "height " + std::to_string(launch.height));
    expect(p.a == a + row * kSplit && p.b == b + row * (kDepth - kSplit) && p.out == out + row * kWidth,
           "other rows from row " + std::to_string(row) + " on");
    row += p.m;
  }
  expect(gDense.size() == 3 && row == kMany, std::to_string(row) + " rows of a high product");
  std::unique_ptr<KernelDevice> kernels;
  expect(createCudaKernels(0, {}, &kernels).ok(), "kernels");
  expect(kernels->dense(a, int64_t{1} << 31, 1, a, nullptr, 1, Activation::linear, out).code == StatusCode::limit,
         "more rows than there are numbers for");
}

}  // namespace

int main() {
  if (const int skip = skipped()) return skip;
  alarm(900);  // a run that waits for ever ends here
  std::string reason;
  gReal = *cuda::driver(&reason);
  highProducts();
  Model fused(64), unfused(16);
  for (Model* model : {&fused, &unfused}) {
    model->works("the driver as it is");
    lacking(*model);
    gCaptures = 0;
    capturing(*model);
    unreadable(*model);
    sticky(*model);
    crowds(*model);
  }
  return result();
}
