// A driver whose calls fail one after the other: every failure becomes a status, nothing is leaked, the next model
// works, and so does the next run of the same model where the error was not a sticky one. Exits with 77 where there is
// no driver library.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <set>

#include "cuda/batch.h"
#include "cuda_cases.h"
#include "cuda_watch.h"

using namespace hpformer;
using namespace hpformer::testing;
namespace cuda = hpformer::cuda;

namespace {

// The fault: call number `at` of all (from 1; 0: none) answers `error` without reaching the driver.
std::atomic<int64_t> gCalls{0}, gAt{0};
std::atomic<int> gError{0};
std::mutex gMutex;
std::atomic<bool> gDisposing{false}, gFailedDisposing{false}, gFailedCapturing{false};
std::atomic<bool> gLoaded{false}, gFailedLoaded{false};
thread_local bool tCapturing = false;
std::string gFailed;              // the call that failed
std::vector<std::string> gNames;  // every call of a clean run, in order
std::vector<size_t> gMarks;       // gNames.size() before each run of a scenario

cuda::CUresult fault(const char* name, cuda::CUstream) {
  if (std::strcmp(name, "beginCapture") == 0) tCapturing = true;
  if (std::strcmp(name, "graphLaunch") == 0) tCapturing = false;
  if (gAt == 0) {
    std::lock_guard lock(gMutex);
    gNames.push_back(name);
  }
  if (++gCalls != gAt) return cuda::kSuccess;
  std::lock_guard lock(gMutex);
  gFailed = name;
  gFailedDisposing = gDisposing.load();
  gFailedCapturing = tCapturing;
  gFailedLoaded = gLoaded.load();
  return gError;
}

struct Scenario {
  std::string name;
  Spec spec;
  std::shared_ptr<const Weights> weights;
  CudaOptions options;
  int64_t slice = 0;   // sequences in a slice; 0: the batch is one
  Batch batch, large;  // `large` outgrows the device's and the pinned memory of `batch`
  std::vector<float> expected, expectedLarge;

  // One slice for each batch. Width 16 takes the unfused path, others the fused one.
  Scenario(uint64_t seed, int64_t hidden) : name("hidden " + std::to_string(hidden)) {
    Random r(seed);
    spec.features = 64;
    spec.positions = PositionKind::interleaved;
    spec.hidden = hidden;
    spec.heads = 8;
    spec.layers = 1;
    spec.labels = 2;
    spec.readout = Readout::step;
    weights = std::make_shared<const Weights>(randomWeights(spec, r));
    batch = randomBatch(spec, r, 2, 12, 0);
    large = randomBatch(spec, r, 6, 50, 0);
  }

  // Three slices on each of `devices` devices: of one sequence; unfused of two, whose blocks are waited for asleep.
  Scenario(int64_t hidden, Readout readout, int64_t sequences, int devices)
      : name(std::to_string(devices) + " devices, three slices, hidden " + std::to_string(hidden) + ", readout " +
             std::to_string(static_cast<int>(readout)) + ", sequences " + std::to_string(sequences)),
        slice(hidden == 16 ? 2 : 1) {
    Random r(31);
    spec.features = 6;
    spec.hidden = hidden;
    spec.heads = 4;
    spec.layers = 1;
    spec.labels = 2;
    spec.readout = readout;
    spec.sequences = sequences;
    options.device = devices > 1 ? -1 : 0;
    weights = std::make_shared<const Weights>(randomWeights(spec, r));
    batch = randomBatch(spec, r, 3 * slice * devices, 14, 17);
  }

  // Load, runs, dispose. One slice: three runs (the second captures a graph, the third replays it), one that makes
  // everything grow. Three slices: two runs, the third slice captures a graph. The first status that is not ok.
  Status play(bool check) {
    gDisposing = gFailedDisposing = gFailedCapturing = tCapturing = gLoaded = gFailedLoaded = false;
    gMarks.clear();
    std::unique_ptr<Backend> backend;
    if (Status s = createCudaBackend(spec, weights, options, &backend); !s.ok()) return s;
    gLoaded = true;
    cuda::sliceSequencesForTests(slice);
    const int runs = slice > 0 ? 2 : 4;
    for (int i = 0; i < runs; ++i) {
      gMarks.push_back(gNames.size());
      Run<float> run(spec, i < 3 ? batch : large, false, false);
      std::vector<float>& want = i < 3 ? expected : expectedLarge;
      if (Status s = backend->run(run.request, {}, kNever); !s.ok()) {
        // An error that is not sticky is that run's alone.
        if (s.code != StatusCode::memory || want.empty()) return s;
        Run<float> again(spec, i < 3 ? batch : large, false, false);
        const Status next = backend->run(again.request, {}, kNever);
        expect(next.ok() && again.logits == want, name + ": the next run of the same model: " + next.message);
        return s;
      }
      if (want.empty()) want = run.logits;
      if (check) expect(run.logits == want, name + ": a run beside or after a failure gives other bits");
    }
    gMarks.push_back(gNames.size());
    gDisposing = true;
    backend.reset();
    gDisposing = false;
    return {};
  }
};

bool isCleanup(const std::string& call) {
  static const std::set<std::string> calls = {"ctxPop",        "memFree",          "memFreeAsync",  "memFreeHost",
                                              "streamDestroy", "eventDestroy",     "ctxPush",       "moduleUnload",
                                              "graphDestroy",  "graphExecDestroy", "primaryRelease"};
  return calls.count(call) > 0;
}

void nothingLeft(const std::string& after) {
  // A call that fails to free leaves its object to the context, and that is released.
  watch::nothingLeft(after, [](const std::string& kind) {
    return (isCleanup(gFailed) && kind != "contexts") || gFailed == "primaryRelease";
  });
}

// One call failing: right status, nothing left, and a clean run afterwards where asked.
void tryFault(Scenario* scenario, int64_t at, int error, bool thenClean) {
  gFailed.clear();
  gCalls = 0;
  gError = error;
  gAt = at;
  const Status s = scenario->play(true);
  gAt = 0;
  if (std::getenv("HPFORMER_TEST_VERBOSE")) {
    std::fprintf(stderr, "%lld %s %d: %s\n", static_cast<long long>(at), gFailed.c_str(), error, s.message.c_str());
  }
  const std::string where =
      scenario->name + ": call " + std::to_string(at) + " (" + gFailed + ") failing with " + std::to_string(error);
  // A failure while cleaning up has nobody to report to, work that cannot be captured is run without a graph, and a run
  // that gets no further stream does with those that there are; any other must be reported, by its kind.
  const bool lane = gFailedLoaded && (gFailed == "streamCreate" || gFailed == "eventCreate");
  if ((gFailedCapturing || lane) && error == 2) {
    expect(s.ok(), where + ": not run without: " + s.message);
  } else if (!isCleanup(gFailed) && !gFailedDisposing) {
    const bool right = s.code == (error == 2 ? StatusCode::memory : StatusCode::device);
    expect(right, where + ": got code " + std::to_string(static_cast<int>(s.code)) + " " + s.message);
    const bool named = s.message.find("cuda:0") != std::string::npos ||
                       (scenario->options.device < 0 && s.message.find("cuda:1") != std::string::npos);
    expect(named, where + ": the message names no device: " + s.message);
  }
  nothingLeft(where);
  if (!thenClean) return;
  const Status again = scenario->play(true);
  expect(again.ok(), where + ", then without it: " + again.message);
  gFailed.clear();
  nothingLeft(where + ", then a clean run");
}

// What a scenario's runs are made of, one failing call after the other: each stride-th of the calls from number `from`
// on, and in any case the first and the last of a name.
int64_t tryCalls(Scenario* scenario, const std::vector<std::string>& calls, size_t from, int64_t stride) {
  std::map<std::string, size_t> last;
  for (size_t i = from; i < calls.size(); ++i) last[calls[i]] = i;
  std::set<int64_t> places;
  std::set<std::string> met;
  for (size_t i = from; i < calls.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) + 1;
    if (met.insert(calls[i]).second || last[calls[i]] == i || at % stride == 0) places.insert(at);
  }
  int64_t tried = 0;
  for (const int64_t at : places) {
    tryFault(scenario, at, 2 /* out of memory */, ++tried % 10 == 1);
    tryFault(scenario, at, 719 /* launch failed: sticky */, ++tried % 10 == 1);
  }
  std::printf("%s: %lld failing calls tried\n", scenario->name.c_str(), static_cast<long long>(tried));
  return tried;
}

std::vector<std::string> cleanRun(Scenario* scenario) {
  gNames.clear();
  const Status clean = scenario->play(true);
  expect(clean.ok(), scenario->name + ": " + clean.message);
  const std::vector<std::string> calls = gNames;
  nothingLeft(scenario->name + ": a clean run");
  return calls;
}

// What the two paths are made of; a call that is never made cannot be seen to fail.
int64_t oneSlice(Scenario* scenario, bool fused, int64_t stride) {
  const std::vector<std::string> calls = cleanRun(scenario);
  for (const char* name :
       {"memAlloc",         "memAllocAsync",     "memFreeAsync",     "memHostAlloc", "memFreeHost",
        "moduleLoadData",   "moduleGetFunction", "funcSetAttribute", "copyToDevice", "copyToHost",
        "launchKernel",     "streamSynchronize", "beginCapture",     "endCapture",   "graphInstantiate",
        "graphDestroy",     "graphLaunch",       "graphExecDestroy", "eventCreate",  "eventRecord",
        "eventSynchronize", "eventDestroy"}) {
    const bool wide = std::strcmp(name, "funcSetAttribute") == 0;  // more shared memory: fused kernels only
    const bool many = std::strncmp(name, "event", 5) == 0;         // more blocks than multiprocessors: unfused only
    const bool made = std::find(calls.begin(), calls.end(), name) != calls.end();
    expect(made || (fused ? many : wide), std::string(name) + " is not called");
  }
  return tryCalls(scenario, calls, 0, stride);
}

// Only what comes after loading.
int64_t threeSlices(Scenario* scenario, int64_t stride) {
  const std::vector<std::string> calls = cleanRun(scenario);
  return tryCalls(scenario, calls, gMarks.empty() ? 0 : gMarks.front(), stride);
}

// A poisoned device stays so while a model holds it, and is fresh afterwards.
void poisoned(Scenario* scenario) {
  {
    std::unique_ptr<Backend> backend;
    expect(createCudaBackend(scenario->spec, scenario->weights, {}, &backend).ok(), "load before poisoning");
    Run<float> run(scenario->spec, scenario->batch, false, false);
    gCalls = 0;
    gError = 700;
    gAt = 4;
    expect(backend->run(run.request, {}, kNever).code == StatusCode::device, "a sticky error is reported");
    gAt = 0;
    const Status later = backend->run(run.request, {}, kNever);
    expect(later.code == StatusCode::device && later.message.find("unusable") != std::string::npos,
           "later runs say that the device is unusable: " + later.message);
    std::unique_ptr<Backend> other;
    expect(!createCudaBackend(scenario->spec, scenario->weights, {}, &other).ok(), "no new model on a poisoned device");
  }
  const Status fresh = scenario->play(true);
  expect(fresh.ok(), "after disposal of the poisoned model: " + fresh.message);
  gFailed.clear();
  nothingLeft("after poisoning");
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t stride = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;  // tries every stride-th call
  if (const int skip = skipped()) return skip;
  watch::start();
  watch::before = fault;
  Scenario unfused(7, 16), fused(7, 128);
  for (int i = 0; i < 100; ++i) {
    if (i == 20) watch::keepModules();  // reading them is most of a cycle
    Scenario& scenario = i % 4 == 0 ? fused : unfused;
    const Status s = scenario.play(i % 10 == 0);
    expect(s.ok(), "cycle " + std::to_string(i) + ": " + s.message);
    if (!s.ok()) break;
  }
  nothingLeft("100 load and dispose cycles");
  poisoned(&unfused);

  int64_t tried = oneSlice(&unfused, false, stride) + oneSlice(&fused, true, stride);
  // A second slice in flight while a call fails; sums over rows, two sequences, several devices.
  for (Scenario scenario : {Scenario(64, Readout::mean, 1, 1), Scenario(64, Readout::mean, 2, 1)}) {
    tried += threeSlices(&scenario, stride);
  }
  Scenario plain(16, Readout::mean, 1, 1);
  tried += threeSlices(&plain, 17 * stride);
  watch::start(2);
  watch::keepModules();
  Scenario all(64, Readout::mean, 1, 2);
  tried += threeSlices(&all, stride);
  watch::before = {};
  watch::stop();
  std::printf("%lld failing calls tried: %d failures\n", static_cast<long long>(tried), gFailures);
  return gFailures == 0 ? 0 : 1;
}
