#include "run_job.h"

#include <cstring>
#include <new>

#include "binding/model/sizes.h"

namespace hpformer::addon {
namespace {

constexpr int64_t kMostIndex = (int64_t{1} << 31) - 1;
constexpr size_t kAlignment = 64;
// Below this a copy is cheaper than what sharing would save.
constexpr size_t kShareBytes = size_t{16} << 10;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t count(std::initializer_list<int64_t> shape) {
  int64_t result = -1;
  return product(shape, &result) ? result : -1;  // -1 equals no array's length
}

}  // namespace

void Staging::Free::operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{kAlignment}); }

bool Staging::reserve(size_t bytes) {
  if (bytes <= bytes_) return true;
  memory_.reset();
  bytes_ = 0;
  const size_t room = aligned(bytes + bytes / 4);
  memory_.reset(static_cast<std::byte*>(::operator new[](room, std::align_val_t{kAlignment}, std::nothrow)));
  if (memory_) bytes_ = room;
  return memory_ != nullptr;
}

void RunJob::clear() {
  model_.reset();
  port.reset();
  status = {};
  cancelled.store(false, std::memory_order_relaxed);
}

void RunJob::read(napi_env env, const SlotValues& slots, std::shared_ptr<const Model> model, bool copy) {
  model_ = std::move(model);
  copy_ = copy;
  inputs_.clear();
  if (model_->isReference()) {
    readAs(env, slots, &wide_);
  } else {
    readAs(env, slots, &narrow_);
  }
  if (status.ok()) stage();
}

template <typename T, typename Name>
void RunJob::input(SlotReader& reader, Name slot, const char* name, int64_t size, bool required, bool mayStay,
                   const T** out) {
  bool shared = false;
  *out = reader.array<T>(slot, name, size, &shared);
  if (!*out) {
    if (required)
      reader.fail(StatusCode::input, name, std::string("expected a ") + arrayTypeName<T>() + ", got nothing");
    return;
  }
  const size_t bytes = static_cast<size_t>(size) * sizeof(T);
  // Ids, lengths, steps and weights are proved first and used later: another thread must not change them in between.
  // Real inputs may change, which spoils the caller's numbers only.
  const bool copy = shared ? !mayStay || (copy_ && bytes < kShareBytes) : copy_;
  inputs_.push_back({reinterpret_cast<const void**>(out), bytes, copy});
}

template <typename Real>
void RunJob::readFeed(SlotReader reader, int64_t batch, Feed<Real>* feed) {
  const Spec& spec = model_->spec();
  *feed = {};
  const int64_t steps = feed->steps = reader.integer(FeedSlot::steps, "steps", 1, kMostIndex);
  switch (spec.embedding) {
    case EmbeddingKind::features:
      input<Real>(reader, FeedSlot::input, "features", count({batch, steps, spec.features}), true, true,
                  &feed->features);
      break;
    case EmbeddingKind::tokens:
      input<int32_t>(reader, FeedSlot::input, "tokens", count({batch, steps}), true, false, &feed->tokens);
      break;
    case EmbeddingKind::scalar:
      input<Real>(reader, FeedSlot::input, "values", count({batch, steps}), true, true, &feed->values);
      break;
  }
  input<int32_t>(reader, FeedSlot::lengths, "lengths", batch, false, false, &feed->lengths);
}

template <typename Real>
void RunJob::readList(SlotReader& reader, napi_value list, const char* name, size_t items, std::vector<Real*>* out,
                      int64_t (*size)(const Spec&, size_t item, int64_t rows), int64_t rows) {
  out->resize(items);
  for (size_t i = 0; i < items && reader.ok(); ++i) {
    napi_value item = nullptr;
    if (napi_get_element(reader.env(), list, static_cast<uint32_t>(i), &item) != napi_ok) {
      return reader.fail(StatusCode::type, name, clearException(reader.env()));
    }
    (*out)[i] = reader.arrayOf<Real>(item, name, size(model_->spec(), i, rows), nullptr);
  }
}

template <typename Real>
void RunJob::readOutputs(SlotReader reader, int64_t batch, int64_t steps, bool oneStep, SequenceOutputs<Real>* out,
                         std::vector<Real*>* layers) {
  const Spec& spec = model_->spec();
  *out = {};
  const int64_t d = spec.hidden;
  const int64_t s = out->segmentsMax = reader.integer(OutSlot::segmentsMax, "segmentsMax", 0, kMostIndex);
  const int64_t rows = count({batch, steps, d}), cut = count({batch, s, d});
  const auto real = [&](OutSlot slot, const char* name, int64_t size) { return reader.array<Real>(slot, name, size); };
  out->pooled = real(OutSlot::pooled, "pooled", count({batch, d}));
  out->keys = real(OutSlot::keys, "keys", cut);
  out->segments = reader.array<int32_t>(OutSlot::segments, "segments", batch);
  out->attention =
      real(OutSlot::attention, "attention", count({batch, oneStep ? 1 : steps, spec.layers, spec.heads, s}));
  out->segmentAttention = real(OutSlot::segmentAttention, "segmentAttention", count({batch, s, s}));
  out->intraAttention = real(OutSlot::intraAttention, "intraAttention", count({batch, steps}));
  out->embedded = real(OutSlot::embedded, "embedded", rows);
  out->segmentPool = real(OutSlot::segmentPool, "segmentPool", cut);
  out->extraSegment = real(OutSlot::extraSegment, "extraSegment", cut);
  out->intraSegment = real(OutSlot::intraSegment, "intraSegment", cut);
  out->encoded = real(OutSlot::encoded, "encoded", rows);
  napi_value list;
  if (!reader.get(OutSlot::layers, &list)) return;
  readList(
      reader, list, "layers", static_cast<size_t>(spec.layers), layers,
      [](const Spec&, size_t, int64_t all) { return all; }, rows);
  out->layers = layers->data();
}

template <typename Real>
void RunJob::readAs(napi_env env, const SlotValues& slots, RequestArrays<Real>* arrays) {
  const Spec& spec = model_->spec();
  Request<Real>& request = arrays->request;
  request = {};
  SlotReader reader(env, slots, 0, &status);
  const int64_t batch = request.batch = reader.integer(Slot::batch, "batch", 1, kMostIndex);
  rewrites_ = static_cast<uint32_t>(reader.integer(Slot::rewrites, "rewrites", 0, 0xffffffff));
  request.trace = reader.boolean(Slot::trace, "trace");
  const bool two = spec.sequences == 2;
  if (reader.ok()) readFeed(SlotReader(env, slots, feedSlots(false), &status), batch, &request.feed);
  if (reader.ok() && two) readFeed(SlotReader(env, slots, feedSlots(true), &status), batch, &request.second);
  const int64_t steps = request.feed.steps;
  if (spec.readout == Readout::step) {
    input<int32_t>(reader, Slot::step, "step", batch, false, false, &request.step);
    input<Real>(reader, Slot::readoutWeights, "readoutWeights", count({batch, steps}), false, false,
                &request.readoutWeights);
  }
  const bool oneStep = spec.readout == Readout::step && !request.readoutWeights;
  const auto outputs = [&](bool second) { return SlotReader(env, slots, outSlots(second), &status); };
  if (reader.ok()) readOutputs(outputs(false), batch, steps, oneStep, &request.out, &arrays->layers);
  if (reader.ok() && two) {
    readOutputs(outputs(true), batch, request.second.steps, false, &request.outSecond, &arrays->secondLayers);
  }
  const int64_t rows = spec.readout == Readout::steps ? count({batch, steps}) : batch;
  request.logits = reader.array<Real>(Slot::logits, "logits", count({rows, spec.labels}));
  request.probabilities = reader.array<Real>(Slot::probabilities, "probabilities", count({rows, spec.labels}));
  napi_value list;
  if (!reader.get(Slot::head, &list)) return;
  readList(
      reader, list, "head", spec.headLayers.size(), &arrays->head,
      [](const Spec& s, size_t j, int64_t all) {
        return count({all, s.headLayers[j].size});
      },
      rows);
  request.head = arrays->head.data();
}

void RunJob::stage() {
  size_t total = 0;
  for (const Input& input : inputs_) total += input.copy ? aligned(input.bytes) : 0;
  if (!staging_.reserve(total)) {
    status = {StatusCode::memory, "expected " + std::to_string(total) + " bytes for a copy of the inputs, got none"};
    return;
  }
  std::byte* to = staging_.data();
  for (const Input& input : inputs_) {
    if (!input.copy) continue;
    std::memcpy(to, *input.slot, input.bytes);
    *input.slot = to;
    to += aligned(input.bytes);
  }
}

void RunJob::work() {
  status = model_->isReference() ? model_->run(&wide_.request, rewrites_, &defaults_, cancelled)
                                 : model_->run(&narrow_.request, rewrites_, &defaults_, cancelled);
}

void RunJob::deliver(Environment& environment) {
  const napi_env env = environment.env();
  if (status.ok() && cancelled.load(std::memory_order_relaxed)) status = {StatusCode::aborted, "aborted"};
  napi_value arguments[2];
  napi_create_int32(env, static_cast<int32_t>(status.code), &arguments[0]);
  const size_t count = status.ok() ? 1 : 2;
  if (count == 2) arguments[1] = stringValue(env, status.message);
  napi_value done = nullptr;
  napi_get_element(env, request_.value(env), static_cast<uint32_t>(Slot::done), &done);
  request_.release(env);
  environment.recycle(std::unique_ptr<RunJob>(this));
  environment.call(done, count, arguments);
}

}  // namespace hpformer::addon
