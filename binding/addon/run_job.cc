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

void RunJob::hold(napi_env env, napi_value object, napi_value done) {
  request_.hold(env, object);
  done_.hold(env, done);
}

void RunJob::read(napi_env env, napi_value object, std::shared_ptr<const Model> model, bool copy) {
  model_ = std::move(model);
  copy_ = copy;
  inputs_.clear();
  ObjectReader reader(env, object, "request", &status);
  if (model_->isReference()) {
    readAs(reader, &wide_);
  } else {
    readAs(reader, &narrow_);
  }
  if (status.ok()) stage();
}

template <typename T>
void RunJob::input(ObjectReader& reader, const char* key, int64_t size, bool required, bool mayStay, const T** slot) {
  bool shared = false;
  *slot = reader.array<T>(key, size, required, &shared);
  if (!*slot) return;
  const size_t bytes = static_cast<size_t>(size) * sizeof(T);
  // Ids, lengths, steps and weights are proved first and used later: another thread must not change them in between. Real
  // inputs may change, which spoils the caller's numbers only.
  const bool copy = shared ? !mayStay || (copy_ && bytes < kShareBytes) : copy_;
  inputs_.push_back({reinterpret_cast<const void**>(slot), bytes, copy});
}

template <typename Real>
void RunJob::readFeed(ObjectReader reader, int64_t batch, Feed<Real>* feed) {
  const Spec& spec = model_->spec();
  *feed = {};
  const int64_t steps = feed->steps = reader.integer("steps", 1, kMostIndex);
  switch (spec.embedding) {
    case EmbeddingKind::features:
      input<Real>(reader, "features", count({batch, steps, spec.features}), true, true, &feed->features);
      break;
    case EmbeddingKind::tokens:
      input<int32_t>(reader, "tokens", count({batch, steps}), true, false, &feed->tokens);
      break;
    case EmbeddingKind::scalar:
      input<Real>(reader, "values", count({batch, steps}), true, true, &feed->values);
      break;
  }
  input<int32_t>(reader, "lengths", batch, false, false, &feed->lengths);
}

template <typename Real>
void RunJob::readOutputs(ObjectReader reader, int64_t batch, int64_t steps, bool oneStep, SequenceOutputs<Real>* out,
                         std::vector<Real*>* layers) {
  const Spec& spec = model_->spec();
  *out = {};
  const int64_t d = spec.hidden;
  const int64_t s = out->segmentsMax = reader.integer("segmentsMax", 0, kMostIndex);
  const int64_t rows = count({batch, steps, d}), cut = count({batch, s, d});
  const auto real = [&](const char* key, int64_t size) { return reader.array<Real>(key, size, false); };
  out->pooled = real("pooled", count({batch, d}));
  out->keys = real("keys", cut);
  out->segments = reader.array<int32_t>("segments", batch, false);
  out->attention = real("attention", count({batch, oneStep ? 1 : steps, spec.layers, spec.heads, s}));
  out->segmentAttention = real("segmentAttention", count({batch, s, s}));
  out->intraAttention = real("intraAttention", count({batch, steps}));
  out->embedded = real("embedded", rows);
  out->segmentPool = real("segmentPool", cut);
  out->extraSegment = real("extraSegment", cut);
  out->intraSegment = real("intraSegment", cut);
  out->encoded = real("encoded", rows);
  napi_value list;
  if (!reader.get("layers", &list)) return;
  layers->resize(static_cast<size_t>(spec.layers));
  for (uint32_t i = 0; i < layers->size(); ++i) {
    napi_value item = nullptr;
    if (napi_get_element(reader.env(), list, i, &item) != napi_ok) {
      return reader.fail(StatusCode::type, "layers", clearException(reader.env()));
    }
    (*layers)[i] = reader.arrayOf<Real>(item, "layers", rows, nullptr);
  }
  out->layers = layers->data();
}

template <typename Real>
void RunJob::readAs(ObjectReader& reader, RequestArrays<Real>* arrays) {
  const Spec& spec = model_->spec();
  Request<Real>& request = arrays->request;
  request = {};
  napi_value object = nullptr;
  const int64_t batch = request.batch = reader.integer("batch", 1, kMostIndex);
  rewrites_ = static_cast<uint32_t>(reader.integer("rewrites", 0, 0xffffffff));
  request.trace = reader.boolean("trace");
  const auto child = [&](const char* key) {
    if (!reader.get(key, &object)) reader.fail(StatusCode::input, key, "expected an object, got nothing");
    return ObjectReader(reader.env(), object, key, &status);
  };
  if (reader.ok()) readFeed(child("feed"), batch, &request.feed);
  if (reader.ok() && spec.sequences == 2) readFeed(child("second"), batch, &request.second);
  const int64_t steps = request.feed.steps;
  if (spec.readout == Readout::step) {
    input<int32_t>(reader, "step", batch, false, false, &request.step);
    input<Real>(reader, "readoutWeights", count({batch, steps}), false, false, &request.readoutWeights);
  }
  const bool oneStep = spec.readout == Readout::step && !request.readoutWeights;
  if (reader.ok()) readOutputs(child("out"), batch, steps, oneStep, &request.out, &arrays->layers);
  if (reader.ok() && spec.sequences == 2 && reader.has("outSecond")) {
    readOutputs(child("outSecond"), batch, request.second.steps, false, &request.outSecond, &arrays->secondLayers);
  }
  const int64_t rows = spec.readout == Readout::steps ? count({batch, steps}) : batch;
  request.logits = reader.array<Real>("logits", count({rows, spec.labels}), false);
  request.probabilities = reader.array<Real>("probabilities", count({rows, spec.labels}), false);
  if (!reader.get("head", &object)) return;
  arrays->head.resize(spec.headLayers.size());
  for (uint32_t j = 0; j < arrays->head.size(); ++j) {
    napi_value item = nullptr;
    if (napi_get_element(reader.env(), object, j, &item) != napi_ok) {
      return reader.fail(StatusCode::type, "head", clearException(reader.env()));
    }
    arrays->head[j] = reader.arrayOf<Real>(item, "head", count({rows, spec.headLayers[j].size}), nullptr);
  }
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
  arguments[1] = stringValue(env, status.message);
  const napi_value done = done_.value(env);
  done_.release(env);
  request_.release(env);
  environment.recycle(std::unique_ptr<RunJob>(this));
  environment.call(done, 2, arguments);
}

}  // namespace hpformer::addon
