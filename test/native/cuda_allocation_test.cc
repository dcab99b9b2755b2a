// Every host allocation of load + run + dispose on a CUDA device fails: the first, then the second, … until a pass
// needs no more; once it alone, once it and all after it. Each failure is StatusCode::memory, nothing is left of host
// or device memory, streams, modules, graphs, and the next pass works with the same bits. Single kernels likewise.
// Exits with 77 where there is no driver library.
#include <unistd.h>

#include <set>

#include "cuda/batch.h"
#include "cuda_cases.h"
#include "cuda_watch.h"
#include "failing_new.h"

using namespace hpformer;
using namespace hpformer::testing;
namespace cuda = hpformer::cuda;
using test::Failing;

namespace {

bool gIdle = false;  // kernels are not computed: nobody looks at what a pass without memory gives

// What the driver allocates is its own business.
void crossing(bool into) {
  static thread_local bool outside = true;
  if (into) outside = test::watched;
  test::watched = into ? false : outside;
}

struct Scenario {
  std::string name;
  Spec spec;
  std::shared_ptr<const Weights> weights;
  Batch batch;

  // Width 16 takes the unfused path. Three slices, so that two lanes are made and the third slice is a graph.
  Scenario(int64_t hidden, Readout readout, EmbeddingKind kind, int64_t sequences = 1)
      : name("hidden " + std::to_string(hidden) + ", readout " + std::to_string(static_cast<int>(readout))) {
    Random r(3);
    spec.embedding = kind;
    spec.features = kind == EmbeddingKind::features ? 6 : 0;
    spec.vocabulary = kind == EmbeddingKind::tokens ? 20 : 0;
    spec.padding = kind == EmbeddingKind::tokens ? 1 : -1;
    spec.positions = PositionKind::interleaved;
    spec.hidden = hidden;
    spec.heads = 4;
    spec.layers = 1;
    spec.labels = 2;
    spec.readout = readout;
    spec.sequences = sequences;
    weights = std::make_shared<const Weights>(randomWeights(spec, r));
    batch = randomBatch(spec, r, 3, 12, 14);
  }

  Status pass(Run<float>* run) const {
    std::unique_ptr<Backend> backend;
    if (Status s = createCudaBackend(spec, weights, {}, &backend); !s.ok()) return s;
    return backend->run(run->request, {}, kNever);
  }
};

void everyAllocation(const Scenario& scenario, Failing mode) {
  const std::string kind = scenario.name + (mode == Failing::once ? ", once" : ", from there on");
  Run<float> run(scenario.spec, scenario.batch, false, true);
  gIdle = false;
  Status s = scenario.pass(&run);
  expect(s.ok(), kind + ": " + s.message);
  watch::nothingLeft(kind);
  const std::vector<float> expected = run.logits;
  int64_t n = 0;
  test::failing = mode;
  for (; n < 20000; ++n) {
    test::failed = false;
    gIdle = true;
    const int64_t before = test::alive;
    test::countdown = n;
    StatusCode code = scenario.pass(&run).code;
    test::countdown = -1;
    const int64_t left = test::alive - before;
    const bool last = !test::failed;
    const std::string where = kind + ": allocation " + std::to_string(n + 1);
    expect(code == (last ? StatusCode::ok : StatusCode::memory),
           where + ": code " + std::to_string(static_cast<int>(code)));
    expect(left == 0, where + ": " + std::to_string(left) + " blocks of host memory left");
    watch::nothingLeft(where);
    if (last) break;
    if (n % 50 != 0) continue;
    gIdle = false;
    run.logits.assign(run.logits.size(), -77);
    s = scenario.pass(&run);
    expect(s.ok() && sameBits(run.logits, expected), where + ", then a pass that has memory: " + s.message);
    watch::nothingLeft(where + ", then a pass that has memory");
  }
  expect(n > 100, kind + ": only " + std::to_string(n) + " allocations");
  std::printf("%s: %lld allocations\n", kind.c_str(), static_cast<long long>(n));
}

// A model that stays loaded: after each failed run it has all its lanes, and gives the same bits.
void everyAllocationOfARun(const Scenario& scenario) {
  std::unique_ptr<Backend> backend;
  Run<float> run(scenario.spec, scenario.batch, false, false);
  gIdle = false;  // a graph would keep what was not computed
  expect(createCudaBackend(scenario.spec, scenario.weights, {}, &backend).ok(), "load");
  expect(backend->run(run.request, {}, kNever).ok(), "run");
  const std::vector<float> expected = run.logits;
  test::failing = Failing::once;
  int64_t n = 0;
  for (bool last = false; !last && n < 5000; ++n) {
    test::failed = false;
    test::countdown = n;
    const StatusCode code = backend->run(run.request, {}, kNever).code;
    test::countdown = -1;
    last = !test::failed;
    expect(code == (last ? StatusCode::ok : StatusCode::memory), scenario.name + ": allocation of a run");
  }
  expect(n > 20, scenario.name + ": only " + std::to_string(n) + " allocations of a run");
  for (int i = 0; i < 4; ++i) {
    expect(backend->run(run.request, {}, kNever).ok() && sameBits(run.logits, expected), "a run after failed ones");
  }
}

// `kernels.*`: after each failed call its lane is free again and nothing is under way on it. What fails before the
// device has anything to do is an exception, which binding/model/kernels.cc makes a status of.
void everyAllocationOfAKernel(const std::string& name, const std::vector<float>& out,
                              const std::function<Status(KernelDevice&)>& kernel) {
  const auto call = [&kernel](KernelDevice& device) -> Status {
    try {
      return kernel(device);
    } catch (const std::bad_alloc&) {
      return {StatusCode::memory, ""};
    }
  };
  static std::set<cuda::CUstream> busy;
  watch::before = [](const char* driverCall, cuda::CUstream stream) {
    static const std::set<std::string> queues = {"copyToDevice", "copyToHost", "launchKernel", "setBytes",
                                                 "graphLaunch"},
                                       waits = {"streamSynchronize", "eventSynchronize"};
    if (queues.count(driverCall)) busy.insert(stream);
    if (waits.count(driverCall)) busy.erase(stream);
    return cuda::kSuccess;
  };
  gIdle = false;
  std::unique_ptr<KernelDevice> kernels;
  expect(createCudaKernels(0, {}, &kernels).ok(), name + ": create");
  expect(call(*kernels).ok(), name + ": call");
  const std::vector<float> expected = out;
  kernels.reset();
  expect(createCudaKernels(0, {}, &kernels).ok(), name + ": create again");
  test::failing = Failing::once;
  int64_t n = 0;
  for (bool last = false; !last && n < 5000; ++n) {
    test::failed = false;
    test::countdown = n;
    const StatusCode code = call(*kernels).code;
    test::countdown = -1;
    last = !test::failed;
    const std::string where = name + ": allocation " + std::to_string(n + 1);
    expect(code == (last ? StatusCode::ok : StatusCode::memory),
           where + ": code " + std::to_string(static_cast<int>(code)));
    expect(busy.empty(), where + ": work under way");
  }
  expect(n > 10, name + ": only " + std::to_string(n) + " allocations");
  expect(call(*kernels).ok() && sameBits(out, expected), name + ": a call after failed ones");
  std::printf("%s: %lld allocations\n", name.c_str(), static_cast<long long>(n));
  kernels.reset();
  watch::before = {};
  watch::nothingLeft(name);
}

// The fused kernels have width 64.
void kernels(int64_t hidden) {
  Random r(4);
  const KernelSizes z{2, 6, hidden, 2, 3, 4};
  const int64_t d = hidden, rows = z.batch * z.steps;
  const auto floats = [&](int64_t count) {
    const Vector v = r.vector(count, 0.2);
    return std::vector<float>(v.begin(), v.end());
  };
  const std::vector<float> x = floats(rows * d), weight = floats(2 * d * d), bias = floats(d),
                           keys = floats(z.batch * z.segments * d);
  std::vector<float> out(static_cast<size_t>(rows * d));
  const std::string width = ", hidden " + std::to_string(hidden);
  everyAllocationOfAKernel("tdhp" + width, out, [&](KernelDevice& k) {
    return k.tdhp(z, x.data(), Pooling::mean, weight.data(), bias.data(), out.data());
  });
  const reference::NormArrays<float> norm{bias.data(), bias.data(), nullptr, nullptr};
  everyAllocationOfAKernel("layer" + width, out, [&](KernelDevice& k) {
    const reference::LayerArrays<float> w{weight.data(), norm, weight.data(), bias.data(), norm};
    return k.layer(z, x.data(), keys.data(), w, NormKind::layernorm, Activation::relu, out.data());
  });
  Spec spec;
  spec.embedding = EmbeddingKind::scalar;
  spec.hidden = d;
  const Weights none;
  const EmbedArrays arrays{x.data(), weight.data(), bias.data(), nullptr, nullptr, nullptr, &none, out.data()};
  everyAllocationOfAKernel("embed" + width, out, [&](KernelDevice& k) { return k.embed(spec, z, arrays); });
}

}  // namespace

int main() {
  if (const int skip = skipped()) return skip;
  alarm(900);  // a call that waits for ever for a lane ends here
  watch::start();
  watch::keepModules();
  watch::crossing = crossing;
  watch::aliased.launchKernel = [](cuda::CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                   unsigned bz, unsigned shared, cuda::CUstream stream, void** arguments,
                                   void** extra) {
    if (gIdle) return cuda::kSuccess;
    return watch::real.launchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra);
  };
  cuda::sliceSequencesForTests(1);
  const Scenario scenarios[] = {{64, Readout::step, EmbeddingKind::features},
                                {64, Readout::mean, EmbeddingKind::tokens, 2},
                                {16, Readout::steps, EmbeddingKind::features}};
  for (const Scenario& scenario : scenarios) {
    for (const Failing mode : {Failing::once, Failing::fromThere}) everyAllocation(scenario, mode);
  }
  for (const Scenario& scenario : scenarios) everyAllocationOfARun(scenario);
  for (const int64_t hidden : {64, 16}) kernels(hidden);
  watch::nothingLeft("the end");
  cuda::sliceSequencesForTests(0);
  watch::stop();
  return result();
}
