// A driver whose calls fail one after the other: every failure becomes a status, nothing is leaked, the next model
// works. The failing driver is the real one (HPFORMER_CUDA_LIBRARY) behind a table of wrappers. Exits with 77 where
// there is none.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "cuda/driver.h"
#include "cuda_cases.h"
#include "cuda_check.h"

using namespace hpformer;
using namespace hpformer::testing;
namespace cuda = hpformer::cuda;

namespace {

cuda::Driver gReal;

// The fault: call number `at` of all (from 1; 0: none) answers `error` without reaching the driver.
std::atomic<int64_t> gCalls{0}, gAt{0};
std::atomic<int> gError{0};
std::mutex gMutex;
std::atomic<bool> gDisposing{false}, gFailedDisposing{false};
std::atomic<bool> gCapturing{false}, gFailedCapturing{false};
std::string gFailed;                   // the call that failed
std::vector<std::string> gNames;       // every call of a clean run, in order
std::map<std::string, int64_t> gLive;  // objects made minus objects freed, by kind
int64_t gLiveBytes = 0;
std::map<cuda::CUdeviceptr, size_t> gSizes;

void count(const char* kind, int64_t change) {
  std::lock_guard lock(gMutex);
  gLive[kind] += change;
}

const std::map<std::string, std::pair<const char*, int>> kObjects = {
    {"primaryRetain", {"contexts", 1}},  {"primaryRelease", {"contexts", -1}},
    {"moduleLoadData", {"modules", 1}},  {"moduleUnload", {"modules", -1}},
    {"memHostAlloc", {"pinned", 1}},     {"memFreeHost", {"pinned", -1}},
    {"streamCreate", {"streams", 1}},    {"streamDestroy", {"streams", -1}},
    {"eventCreate", {"events", 1}},      {"eventDestroy", {"events", -1}},
    {"graphInstantiate", {"graphs", 1}}, {"graphExecDestroy", {"graphs", -1}},
    {"ctxPush", {"pushed", 1}},          {"ctxPop", {"pushed", -1}}};

void allocated(const char* name, cuda::CUdeviceptr* address, size_t bytes) {
  (void)name;
  std::lock_guard lock(gMutex);
  gSizes[*address] = bytes;
  gLiveBytes += static_cast<int64_t>(bytes);
}
void freed(cuda::CUdeviceptr address) {
  std::lock_guard lock(gMutex);
  gLiveBytes -= static_cast<int64_t>(gSizes[address]);
  gSizes.erase(address);
}

template <typename... Args>
void observe(const char* name, Args... args) {
  if (const auto found = kObjects.find(name); found != kObjects.end()) count(found->second.first, found->second.second);
  if constexpr (sizeof...(Args) >= 1) {
    auto all = std::make_tuple(args...);
    using First = std::tuple_element_t<0, decltype(all)>;
    const std::string text = name;
    if constexpr (std::is_same_v<First, cuda::CUdeviceptr*> && sizeof...(Args) >= 2) {
      allocated(name, std::get<0>(all), std::get<1>(all));
    }
    if constexpr (std::is_same_v<First, cuda::CUdeviceptr>) {
      if (text == "memFree" || text == "memFreeAsync") freed(std::get<0>(all));
    }
  }
}

template <typename Tag, typename Function>
struct Wrap;
template <typename Tag, typename... Args>
struct Wrap<Tag, cuda::CUresult (*)(Args...)> {
  static cuda::CUresult call(Args... args) {
    const bool harmless = std::strcmp(Tag::name(), "getErrorName") == 0;
    if (!harmless && gAt == 0) {
      std::lock_guard lock(gMutex);
      gNames.push_back(Tag::name());
    }
    if (std::strcmp(Tag::name(), "beginCapture") == 0) gCapturing = true;
    if (std::strcmp(Tag::name(), "graphLaunch") == 0) gCapturing = false;
    if (!harmless && ++gCalls == gAt) {
      std::lock_guard lock(gMutex);
      gFailed = Tag::name();
      gFailedDisposing = gDisposing.load();
      gFailedCapturing = gCapturing.load();
      return gError;
    }
    const cuda::CUresult result = (gReal.*Tag::member())(args...);
    if (result == cuda::kSuccess) observe(Tag::name(), args...);
    return result;
  }
};

#define TAG(member_, symbol, parameters)                    \
  struct Tag_##member_ {                                    \
    static const char* name() { return #member_; }          \
    static auto member() { return &cuda::Driver::member_; } \
  };
HPFORMER_CUDA_FUNCTIONS(TAG)
HPFORMER_CUDA_OPTIONAL(TAG)

cuda::Driver wrapped() {
  cuda::Driver table;
#define FILL(member_, symbol, parameters) \
  if (gReal.member_) table.member_ = &Wrap<Tag_##member_, decltype(cuda::Driver::member_)>::call;
  HPFORMER_CUDA_FUNCTIONS(FILL)
  HPFORMER_CUDA_OPTIONAL(FILL)
  return table;
}

struct Scenario {
  Spec spec;
  std::shared_ptr<const Weights> weights;
  Batch batch, large;  // `large` outgrows the device's and the pinned memory of `batch`
  std::vector<float> expected, expectedLarge;

  // Width 16 takes the unfused path, 128 the fused one.
  Scenario(uint64_t seed, int64_t hidden) {
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

  // Load, three runs (the second captures a graph, the third replays it), one that makes everything grow, dispose. The
  // first status that is not ok.
  Status play(bool check) {
    gDisposing = gFailedDisposing = gCapturing = gFailedCapturing = false;
    std::unique_ptr<Backend> backend;
    if (Status s = createCudaBackend(spec, weights, {}, &backend); !s.ok()) return s;
    for (int i = 0; i < 4; ++i) {
      Run<float> run(spec, i < 3 ? batch : large, false, false);
      if (Status s = backend->run(run.request, {}, kNever); !s.ok()) return s;
      std::vector<float>& want = i < 3 ? expected : expectedLarge;
      if (want.empty()) want = run.logits;
      if (check) expect(run.logits == want, "a run beside or after a failure gives other bits");
    }
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
  std::lock_guard lock(gMutex);
  for (const auto& [kind, live] : gLive) {
    // A call that fails to free leaves its object to the context, and that is released.
    if (live != 0 && !(isCleanup(gFailed) && kind != "contexts") && !(gFailed == "primaryRelease")) {
      expect(false, after + ": " + std::to_string(live) + " " + kind + " left");
    }
  }
  if (gLiveBytes != 0 && !isCleanup(gFailed)) expect(false, after + ": " + std::to_string(gLiveBytes) + " bytes left");
  gLive.clear();
  gSizes.clear();
  gLiveBytes = 0;
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
  const std::string where = "call " + std::to_string(at) + " (" + gFailed + ") failing with " + std::to_string(error);
  // A failure while cleaning up has nobody to report to, and work that cannot be captured is run without a graph; any
  // other must be reported, by its kind.
  if (gFailedCapturing && error == 2) {
    expect(s.ok(), where + ": not run without a graph: " + s.message);
  } else if (!isCleanup(gFailed) && !gFailedDisposing) {
    const bool right = s.code == (error == 2 ? StatusCode::memory : StatusCode::device);
    expect(right, where + ": got code " + std::to_string(static_cast<int>(s.code)) + " " + s.message);
    expect(s.message.find("cuda:0") != std::string::npos, where + ": the message names no device: " + s.message);
  }
  nothingLeft(where);
  if (!thenClean) return;
  const Status again = scenario->play(true);
  expect(again.ok(), where + ", then without it: " + again.message);
  gFailed.clear();
  nothingLeft(where + ", then a clean run");
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t stride = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;  // tries every stride-th call
  if (const int skip = skipped()) return skip;
  std::string reason;
  gReal = *cuda::driver(&reason);
  const cuda::Driver table = wrapped();
  cuda::replaceDriverForTests(&table);

  int64_t tried = 0;
  Scenario scenario(7, 16), fused(7, 128);
  for (Scenario* each : {&scenario, &fused}) {
    gNames.clear();
    const Status clean = each->play(true);
    expect(clean.ok(), clean.message);
    const std::vector<std::string> calls = gNames;
    nothingLeft("a clean run");
    // What the two paths are made of; a call that is never made cannot be seen to fail.
    for (const char* name :
         {"memAlloc",         "memAllocAsync",     "memFreeAsync",     "memHostAlloc", "memFreeHost",
          "moduleLoadData",   "moduleGetFunction", "funcSetAttribute", "copyToDevice", "copyToHost",
          "launchKernel",     "streamSynchronize", "beginCapture",     "endCapture",   "graphInstantiate",
          "graphDestroy",     "graphLaunch",       "graphExecDestroy", "eventCreate",  "eventRecord",
          "eventSynchronize", "eventDestroy"}) {
      const bool wide = std::strcmp(name, "funcSetAttribute") == 0;  // more shared memory: fused kernels only
      const bool many = std::strncmp(name, "event", 5) == 0;         // more blocks than multiprocessors: unfused only
      const bool made = std::find(calls.begin(), calls.end(), name) != calls.end();
      expect(made || (each == &scenario ? wide : many), std::string(name) + " is not called");
    }
    // Each call, or every stride-th, and in any case the first and the last of a name.
    std::map<std::string, int64_t> last;
    for (size_t i = 0; i < calls.size(); ++i) last[calls[i]] = static_cast<int64_t>(i) + 1;
    std::set<int64_t> places;
    std::set<std::string> met;
    for (int64_t at = 1; at <= static_cast<int64_t>(calls.size()); ++at) {
      const std::string& name = calls[static_cast<size_t>(at) - 1];
      if (met.insert(name).second || last[name] == at || at % stride == 0) places.insert(at);
    }
    for (const int64_t at : places) {
      const bool both =
          each == &scenario;  // the fused kernels take longer to load: one kind of error for each call there
      if (both || at % 2 == 0) tryFault(each, at, 2 /* out of memory */, ++tried % 10 == 1);
      if (both || at % 2 == 1) tryFault(each, at, 719 /* launch failed: sticky */, ++tried % 10 == 1);
    }
  }

  // A poisoned device stays so while a model holds it, and is fresh afterwards.
  {
    std::unique_ptr<Backend> backend;
    expect(createCudaBackend(scenario.spec, scenario.weights, {}, &backend).ok(), "load before poisoning");
    Run<float> run(scenario.spec, scenario.batch, false, false);
    gCalls = 0;
    gError = 700;
    gAt = 4;
    expect(backend->run(run.request, {}, kNever).code == StatusCode::device, "a sticky error is reported");
    gAt = 0;
    const Status later = backend->run(run.request, {}, kNever);
    expect(later.code == StatusCode::device && later.message.find("unusable") != std::string::npos,
           "later runs say that the device is unusable: " + later.message);
    std::unique_ptr<Backend> other;
    expect(!createCudaBackend(scenario.spec, scenario.weights, {}, &other).ok(), "no new model on a poisoned device");
  }
  const Status fresh = scenario.play(true);
  expect(fresh.ok(), "after disposal of the poisoned model: " + fresh.message);
  gFailed.clear();
  nothingLeft("after poisoning");

  for (int i = 0; i < 100; ++i) {
    const Status s = (i % 4 == 0 ? fused : scenario).play(i % 10 == 0);
    expect(s.ok(), "cycle " + std::to_string(i) + ": " + s.message);
    if (!s.ok()) break;
  }
  nothingLeft("100 load and dispose cycles");
  cuda::replaceDriverForTests(nullptr);
  std::printf("%lld failing calls tried: %d failures\n", static_cast<long long>(tried), gFailures);
  return gFailures == 0 ? 0 : 1;
}
