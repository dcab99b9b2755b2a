// Every host allocation of load + run + dispose on a CUDA device fails: the first, then the second, … until a pass
// needs no more; once it alone, once it and all after it. Each failure is StatusCode::memory, nothing is left of host
// or device memory, streams, modules, graphs, and the next pass works with the same bits. Exits with 77 where there is
// no driver library.
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

}  // namespace

int main() {
  if (const int skip = skipped()) return skip;
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
  watch::nothingLeft("the end");
  cuda::sliceSequencesForTests(0);
  watch::stop();
  return result();
}
