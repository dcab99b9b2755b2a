// A batch in slices: copies of one slice are queued before anyone waits for the slice before it, on another stream and
// from pinned memory, as plain calls and as graphs; results have the same bits in one slice, two and five; a run that
// is cancelled between slices leaves nothing. Exits with 77 where there is no driver library.
#include <atomic>
#include <thread>

#include "cuda/batch.h"
#include "cuda_cases.h"
#include "cuda_watch.h"

using namespace hpformer;
using namespace hpformer::testing;
namespace cuda = hpformer::cuda;

namespace {

constexpr int64_t kBatch = 10;

struct Model {
  Spec spec;
  std::shared_ptr<const Weights> weights;
  Precision precision;
  std::string name;
  Plan plan;

  // Width 16 takes the unfused path. `sequences` 2: tokens, readout mean.
  Model(int64_t hidden, Readout readout, Precision type, int64_t sequences = 1) : precision(type) {
    Random r(17);
    spec.hidden = hidden;
    spec.heads = 8;
    spec.layers = 1;
    spec.labels = 3;
    spec.link = Link::softmax;
    spec.readout = readout;
    spec.sequences = sequences;
    spec.over = Over::valid;
    if (sequences == 2) {
      spec.embedding = EmbeddingKind::tokens;
      spec.vocabulary = 30;
      spec.padding = 1;
      spec.positions = PositionKind::interleaved;
    } else {
      spec.features = 9;
    }
    plan.precision = type;
    weights = std::make_shared<const Weights>(randomWeights(spec, r));
    name = "hidden " + std::to_string(hidden) + ", readout " + std::to_string(static_cast<int>(readout)) + ", " +
           std::to_string(sequences) + (type == Precision::float32 ? " of float32" : " of bfloat16");
  }
  Batch batch(int64_t steps = 20) const {
    Random r(23);
    return randomBatch(spec, r, kBatch, steps, steps + 3);
  }
};

// ---- what a run asks of the driver, in order ----

struct Event {
  enum Kind { in, work, out, graph, wait } kind;
  cuda::CUstream stream;
};

std::vector<Event> gEvents;  // of the calling thread's runs
bool gUnpinned = false;      // a copy from or to memory that the driver would have to stage

// Notes copies, launches and waits; what is only captured is no work yet, a graph's launch is all three.
void note() {
  using watch::before;
  static bool capturing;
  capturing = false;
  watch::aliased.copyToDevice = [](cuda::CUdeviceptr to, const void* from, size_t bytes, cuda::CUstream stream) {
    gUnpinned = gUnpinned || !watch::isPinned(from);
    return watch::real.copyToDevice(to, from, bytes, stream);
  };
  watch::aliased.copyToHost = [](void* to, cuda::CUdeviceptr from, size_t bytes, cuda::CUstream stream) {
    gUnpinned = gUnpinned || !watch::isPinned(to);
    return watch::real.copyToHost(to, from, bytes, stream);
  };
  before = [](const char* name, cuda::CUstream stream) {
    static const std::map<std::string, Event::Kind> kinds = {
        {"copyToDevice", Event::in},   {"launchKernel", Event::work},      {"copyToHost", Event::out},
        {"graphLaunch", Event::graph}, {"streamSynchronize", Event::wait}, {"eventSynchronize", Event::wait}};
    if (std::strcmp(name, "beginCapture") == 0) capturing = true;
    if (std::strcmp(name, "endCapture") == 0) capturing = false;
    const auto found = kinds.find(name);
    if (found != kinds.end() && !capturing) gEvents.push_back({found->second, stream});
    return cuda::kSuccess;
  };
}

// The events' slices in order: where each starts, where it has been queued whole, where someone waits for it.
struct Times {
  size_t start, queued, waited;
  cuda::CUstream stream;
  bool graph;
};

std::vector<Times> slices(const std::string& what) {
  std::vector<Times> all;
  std::map<cuda::CUstream, size_t> open;  // stream → its slice
  for (size_t i = 0; i < gEvents.size(); ++i) {
    const Event& e = gEvents[i];
    const auto known = open.find(e.stream);
    switch (e.kind) {
      case Event::in:
      case Event::graph:
        expect(known == open.end(), what + ": a stream takes a slice while it has one");
        open[e.stream] = all.size();
        all.push_back({i, e.kind == Event::graph ? i : 0, 0, e.stream, e.kind == Event::graph});
        break;
      case Event::work: expect(known != open.end(), what + ": work before its input"); break;
      case Event::out:
        expect(known != open.end(), what + ": results before work");
        if (known != open.end()) all[known->second].queued = i;
        break;
      case Event::wait:
        expect(known != open.end(), what + ": someone waits for nothing");
        if (known != open.end()) {
          all[known->second].waited = i;
          open.erase(known);
        }
        break;
    }
  }
  expect(open.empty(), what + ": slices that nobody waited for");
  return all;
}

void overlap(Model model) {
  model.spec.over = Over::padded;  // equal slices: the same shape again and again
  std::unique_ptr<Backend> backend;
  const Batch batch = model.batch();
  Status s = load(model.spec, model.weights, model.precision, &backend);
  expect(s.ok(), model.name + ": " + s.message);
  if (!s.ok()) return;
  int graphs = 0;
  cuda::sliceSequencesForTests(2);  // five slices
  for (int turn = 0; turn < 4; ++turn) {
    // The first run also uploads tables, on a stream of its own: not noted.
    if (turn > 0) note();
    if (turn == 1) gUnpinned = false;
    gEvents.clear();
    Run<float> run(model.spec, batch, false, false);
    s = backend->run(run.request, model.plan, kNever);
    watch::before = {};
    const std::string what = model.name + ", run " + std::to_string(turn);
    expect(s.ok(), what + ": " + s.message);
    if (turn == 0) continue;
    const std::vector<Times> all = slices(what);
    expect(all.size() == 5, what + ": " + std::to_string(all.size()) + " slices");
    for (size_t i = 0; i < all.size(); ++i) {
      graphs += all[i].graph;
      expect(all[i].start <= all[i].queued && all[i].queued < all[i].waited, what + ": copy in, work, copy out, wait");
      if (i == 0) continue;
      expect(all[i].start < all[i - 1].waited, what + ": a slice is queued before the one before it is waited for");
      expect(all[i].stream != all[i - 1].stream, what + ": neighbours are on one stream");
      if (i > 1) expect(all[i - 2].waited < all[i].start, what + ": at most two are under way");
    }
  }
  cuda::sliceSequencesForTests(0);
  expect(!gUnpinned, model.name + ": copies from or to memory that is not pinned");
  expect(graphs >= 5, model.name + ": " + std::to_string(graphs) + " slices ran as graphs");
}

// ---- bits ----

void bits(const Model& model) {
  std::unique_ptr<Backend> backend;
  const Batch batch = model.batch();
  Status s = load(model.spec, model.weights, model.precision, &backend);
  expect(s.ok(), model.name + ": " + s.message);
  if (!s.ok()) return;
  std::vector<std::vector<float>> first;
  for (const int64_t most : {0, 5, 2, 3, 1}) {  // one slice, two, five, four (the last one smaller), ten
    cuda::sliceSequencesForTests(most);
    Run<float> run(model.spec, batch, false, false);
    s = backend->run(run.request, model.plan, kNever);
    const std::string what = model.name + ", slices of " + std::to_string(most);
    expect(s.ok(), what + ": " + s.message);
    const std::vector<std::vector<float>> got = {run.logits,       run.probabilities, run.first.keys,
                                                 run.first.pooled, run.second.keys,   run.second.pooled};
    if (first.empty()) first = got;
    for (size_t i = 0; i < got.size(); ++i) {
      expect(sameBits(got[i], first[i]), what + ": other bits in output " + std::to_string(i));
    }
  }
  cuda::sliceSequencesForTests(0);
}

// ---- cancelling ----

// The flag goes up at launch number `at` of a run of five slices.
void cancelled(const Model& model, int devices) {
  std::unique_ptr<Backend> backend;
  const Batch batch = model.batch();
  Status s = load(model.spec, model.weights, model.precision, &backend, "", devices > 1 ? -1 : 0);
  expect(s.ok(), model.name + ": " + s.message);
  if (!s.ok()) return;
  static std::atomic<int> launches{0}, raiseAt{0};
  static CancelFlag flag{false};
  const auto counting = [](const char* name, cuda::CUstream) {
    if (std::strcmp(name, "launchKernel") == 0 && ++launches == raiseAt) flag = true;
    return std::strcmp(name, "beginCapture") == 0 ? cuda::CUresult{900} : cuda::kSuccess;  // graphs make no launches
  };
  const auto run = [&](const CancelFlag& cancel, std::vector<float>* logits) {
    Run<float> one(model.spec, batch, false, false);
    launches = 0;
    watch::before = counting;
    Status status = backend->run(one.request, model.plan, cancel);
    watch::before = {};
    *logits = std::move(one.logits);
    return status;
  };
  std::vector<float> want, got;
  raiseAt = -1;
  s = run(kNever, &want);
  expect(s.ok(), model.name + ": " + s.message);
  cuda::sliceSequencesForTests(2 / devices);
  s = run(kNever, &got);
  const int all = launches, each = all / (5 * devices);
  expect(s.ok() && sameBits(want, got), model.name + ": in slices");
  // In the first slice, in the second, in the one before the last.
  for (const int at : {1, each + 1, 4 * each - each / 2}) {
    flag = false;
    raiseAt = at;
    s = run(flag, &got);
    const std::string what = model.name + ", cancelled at launch " + std::to_string(at) + " of " + std::to_string(all);
    expect(s.code == StatusCode::aborted, what + ": code " + std::to_string(static_cast<int>(s.code)) + s.message);
    // What is under way is finished (on each device), nothing more begun.
    expect(launches <= at + each * devices && launches < all, what + ": " + std::to_string(launches) + " launches");
    raiseAt = -1;
    for (int i = 0; i < 2; ++i) {
      s = run(kNever, &got);
      expect(s.ok() && sameBits(want, got), what + ": the next run: " + s.message);
    }
    flag = true;
    s = run(flag, &got);
    expect(s.code == StatusCode::aborted && launches == 0, what + ": a flag that is up before the run");
  }
  cuda::sliceSequencesForTests(0);
  backend.reset();
  watch::nothingLeft(model.name + ", cancelled");
}

}  // namespace

int main() {
  if (const int skip = skipped()) return skip;
  watch::start();
  const Model models[] = {{64, Readout::step, Precision::bfloat16}, {64, Readout::steps, Precision::bfloat16},
                          {64, Readout::mean, Precision::float32},  {64, Readout::mean, Precision::bfloat16, 2},
                          {16, Readout::steps, Precision::float32}, {16, Readout::mean, Precision::float32, 2}};
  for (const Model& model : models) bits(model);
  overlap(models[0]);
  overlap(models[3]);
  overlap(models[4]);
  for (int i : {1, 2, 4}) cancelled(models[i], 1);
  watch::nothingLeft("slices");
  watch::start(2);
  for (int i : {1, 4}) cancelled(models[i], 2);
  watch::stop();
  return result();
}
