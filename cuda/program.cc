#include "program.h"

namespace hpformer::cuda {
namespace {

constexpr int kGraphsPerLane = 32;

void append(std::string* to, const void* data, size_t bytes) { to->append(static_cast<const char*>(data), bytes); }

}  // namespace

Status Program::start(Device& device, Lane& lane) {
  if (Status s = run(device, lane); !s.ok()) return s;
  // A stream is waited for by spinning, which is right for microseconds. More blocks than the device has room for at
  // once take longer: the thread sleeps.
  if (blocks() <= device.multiprocessors()) return {};
  const Status recorded = device.check(device.driver().eventRecord(lane.done, lane.stream), "cuEventRecord");
  asleep_ = recorded.ok();
  return recorded;
}

Status Program::run(Device& device, Lane& lane) {
  constexpr int kNever = -1;
  if (!device.driver().hasGraphs()) return enqueue(device, lane);
  const std::string shape = fingerprint();
  const auto known = lane.graphs.find(shape);
  CUgraphExec graph = known == lane.graphs.end() ? nullptr : known->second;
  if (!graph) {
    // One-off shapes are not worth a graph, and graphs are not worth unbounded memory.
    if (lane.seen.size() >= 4 * kGraphsPerLane) lane.seen.clear();
    int& seen = lane.seen[shape];
    if (seen == kNever || ++seen < 2 || lane.graphs.size() >= kGraphsPerLane) return enqueue(device, lane);
    CUgraphExec& place = lane.graphs[shape];  // made first, so that no graph is lost
    if (Status s = capture(device, lane, &graph); !s.ok()) {
      lane.graphs.erase(shape);
      if (!device.poisoned().ok()) return s;
      seen = kNever;  // what cannot be captured can still be run
      return enqueue(device, lane);
    }
    place = graph;
  }
  return device.check(device.driver().graphLaunch(graph, lane.stream), "cuGraphLaunch");
}

Status Program::finish(Device& device, Lane& lane, bool complete) {
  const Driver& d = device.driver();
  const Status done = asleep_ ? device.check(d.eventSynchronize(lane.done), "cuEventSynchronize")
                              : device.check(d.streamSynchronize(lane.stream), "cuStreamSynchronize");
  if (!done.ok()) {
    // Whatever is still running must not find its memory in other hands.
    (void)d.streamSynchronize(lane.stream);
    return done;
  }
  for (size_t i = 0; complete && i < results_.size(); ++i) {
    const Result& r = results_[i];
    std::memcpy(r.to, arena.host<char>(r.at), r.bytes);
  }
  held_.clear();
  return {};
}

int64_t Program::blocks() const {
  int64_t sum = 0;
  for (const Step& step : steps_) sum += step.kernel.empty() ? 0 : step.grid.x * step.grid.y;
  return sum;
}

Status Program::repeat(Device& device, Lane& lane) {
  const Driver& d = device.driver();
  for (Step& step : steps_) {
    if (step.kernel.empty()) {
      if (Status s = device.check(d.setBytes(step.address, 0, step.bytes, lane.stream), "cuMemsetD8Async"); !s.ok())
        return s;
      continue;
    }
    CUfunction function = nullptr;
    if (Status s = device.function(step.kernel, step.shared, &function); !s.ok()) return s;
    void* arguments[] = {step.params.data()};
    const CUresult result = d.launchKernel(function, static_cast<unsigned>(step.grid.x),
                                           static_cast<unsigned>(step.grid.y), 1, static_cast<unsigned>(step.threads),
                                           1, 1, static_cast<unsigned>(step.shared), lane.stream, arguments, nullptr);
    if (Status s = device.check(result, "cuLaunchKernel"); !s.ok()) return s;
  }
  return {};
}

Status Program::enqueue(Device& device, Lane& lane) {
  const Driver& d = device.driver();
  const CUdeviceptr base = lane.arena.address();
  const size_t in = arena.inputBytes(), out = arena.outputBytes();
  if (in > 0) {
    if (Status s = device.check(d.copyToDevice(base, lane.pinned, in, lane.stream), "cuMemcpyHtoDAsync"); !s.ok())
      return s;
  }
  if (Status s = repeat(device, lane); !s.ok()) return s;
  if (out > 0) {
    const CUresult result = d.copyToHost(static_cast<char*>(lane.pinned) + in, base + in, out, lane.stream);
    if (Status s = device.check(result, "cuMemcpyDtoHAsync"); !s.ok()) return s;
  }
  return {};
}

Status Program::capture(Device& device, Lane& lane, CUgraphExec* out) {
  const Driver& d = device.driver();
  // Modules are loaded before: that is not allowed while a stream is captured.
  for (const Step& step : steps_) {
    CUfunction function = nullptr;
    if (step.kernel.empty()) continue;
    if (Status s = device.function(step.kernel, step.shared, &function); !s.ok()) return s;
  }
  if (Status s = device.check(d.beginCapture(lane.stream, kCaptureThreadLocal), "cuStreamBeginCapture"); !s.ok())
    return s;
  Status status = enqueue(device, lane);
  // Capture must be ended whatever happened, or the stream stays unusable.
  CUgraph graph = nullptr;
  Status ended = device.check(d.endCapture(lane.stream, &graph), "cuStreamEndCapture");
  if (!ended.ok() && !graph) (void)d.endCapture(lane.stream, &graph);
  if (status.ok()) status = ended;
  if (status.ok()) status = device.check(d.graphInstantiate(out, graph, 0), "cuGraphInstantiate");
  if (graph) {
    const Status destroyed = device.check(d.graphDestroy(graph), "cuGraphDestroy");
    if (status.ok() && !destroyed.ok()) {
      (void)d.graphExecDestroy(*out);
      status = destroyed;
    }
  }
  return status;
}

// Everything that a captured graph would bake in: equal fingerprints on one lane are the same work on the same
// addresses.
std::string Program::fingerprint() const {
  std::string text;
  const size_t sizes[] = {arena.inputBytes(), arena.outputBytes()};
  append(&text, sizes, sizeof(sizes));
  for (const Step& s : steps_) {
    text += s.kernel;
    const int64_t numbers[] = {s.grid.x,
                               s.grid.y,
                               s.threads,
                               static_cast<int64_t>(s.shared),
                               static_cast<int64_t>(s.address),
                               static_cast<int64_t>(s.bytes)};
    append(&text, numbers, sizeof(numbers));
    append(&text, s.params.data(), s.params.size());
  }
  return text;
}

}  // namespace hpformer::cuda
