#include "load_job.h"

#include <new>
#include <utility>

#include "values.h"

namespace hpformer::addon {
namespace {

constexpr int64_t kMostSize = (int64_t{1} << 31) - 2;  // as in src/config/schema.ts

template <typename Enum>
Enum choice(ObjectReader& reader, const char* key, Enum last) {
  return static_cast<Enum>(reader.integer(key, 0, static_cast<int64_t>(last)));
}

// src/config proves a config; here only what memory depends on is proved again.
void readSpec(ObjectReader reader, Spec* spec) {
  spec->embedding = choice(reader, "embedding", EmbeddingKind::scalar);
  spec->features = reader.integer("features", spec->embedding == EmbeddingKind::features ? 1 : 0, kMostSize);
  spec->vocabulary = reader.integer("vocabulary", spec->embedding == EmbeddingKind::tokens ? 1 : 0, kMostSize);
  spec->padding = reader.integer("padding", -1, kMostSize);
  if (spec->embedding == EmbeddingKind::tokens && spec->padding >= spec->vocabulary) {
    reader.fail(StatusCode::config, "padding",
                "expected an id of the vocabulary, got " + std::to_string(spec->padding));
  }
  spec->positions = choice(reader, "positions", PositionKind::learned);
  spec->scaleInput = reader.boolean("scaleInput");
  spec->maximum = reader.integer("maximum", spec->positions == PositionKind::learned ? 1 : 0, kMostSize);
  spec->embeddingNorm = reader.boolean("embeddingNorm");
  spec->hidden = reader.integer("hidden", 1, kMostSize);
  spec->heads = reader.integer("heads", 1, kMostSize);
  if (spec->hidden % spec->heads != 0) {
    reader.fail(StatusCode::config, "heads",
                "expected a divisor of " + std::to_string(spec->hidden) + ", got " + std::to_string(spec->heads));
  }
  spec->layers = reader.integer("layers", 1, 1 << 20);
  spec->tiedLayers = reader.boolean("tiedLayers");
  spec->activation = choice(reader, "activation", Activation::geluTanh);
  spec->norm = choice(reader, "norm", NormKind::rmsnorm);
  spec->rule = choice(reader, "rule", SegmentRule::paper);
  spec->times = reader.integer("times", 1, 1 << 20);
  spec->pooling = choice(reader, "pooling", Pooling::max);
  spec->segmentSteps = reader.integer("segmentSteps", 0, kMostSize);
  spec->over = choice(reader, "over", Over::valid);
  spec->readout = choice(reader, "readout", Readout::mean);
  spec->sequences = reader.integer("sequences", 1, spec->readout == Readout::mean ? 2 : 1);
  spec->labels = reader.integer("labels", 1, kMostSize);
  spec->headBias = reader.boolean("headBias");
  spec->link = choice(reader, "link", Link::softmax);
}

void readHead(napi_env env, napi_value spec, Spec* out, Status* status) {
  napi_value list, item;
  uint32_t count = 0;
  if (napi_get_named_property(env, spec, "headLayers", &list) != napi_ok ||
      napi_get_array_length(env, list, &count) != napi_ok) {
    clearException(env);
    *status = {StatusCode::type, "spec.headLayers: expected an array"};
    return;
  }
  for (uint32_t j = 0; j < count && status->ok(); ++j) {
    napi_get_element(env, list, j, &item);
    ObjectReader reader(env, item, "spec.headLayers", status);
    HeadLayer layer;
    layer.size = reader.integer("size", 1, kMostSize);
    layer.activation = choice(reader, "activation", Activation::geluTanh);
    out->headLayers.push_back(layer);
  }
}

}  // namespace

void LoadJob::read(napi_env env, napi_value spec, napi_value weights, napi_value options) {
  readSpec(ObjectReader(env, spec, "spec", &status), &spec_);
  if (status.ok()) readHead(env, spec, &spec_, &status);
  ObjectReader reader(env, options, "options", &status);
  options_.device = reader.text("device");
  options_.precision = choice(reader, "precision", Precision::bfloat16);
  options_.threads = static_cast<int>(reader.integer("threads", 0, 4096));
  options_.key = reader.text("key");
  options_.rejectNonFinite = reader.boolean("rejectNonFinite");
  if (status.ok()) readWeights(env, weights);
}

void LoadJob::readWeights(napi_env env, napi_value weights) {
  napi_value names;
  uint32_t count = 0;
  if (napi_get_property_names(env, weights, &names) != napi_ok ||
      napi_get_array_length(env, names, &count) != napi_ok) {
    clearException(env);
    status = {StatusCode::type, "weights: expected an object of typed arrays"};
    return;
  }
  for (uint32_t i = 0; i < count; ++i) {
    // Thousands of layers must not pile up handles. Copies may run out of memory, and a scope left open ends the
    // process.
    const Napi::HandleScope scope(env);
    napi_value key, value;
    View view;
    if (napi_get_element(env, names, i, &key) != napi_ok || napi_get_property(env, weights, key, &value) != napi_ok ||
        !viewOf(env, value, &view) || (view.type != napi_float32_array && view.type != napi_float64_array)) {
      clearException(env);
      status = {StatusCode::type, "weights: expected a Float32Array or Float64Array for every name"};
    } else {
      NamedArray& array = arrays_[textOf(env, key)];
      if (view.type == napi_float32_array) {
        const float* from = static_cast<const float*>(view.data);
        array.narrow.assign(from, from + view.count);
      } else {
        const double* from = static_cast<const double*>(view.data);
        array.wide.assign(from, from + view.count);
      }
    }
    if (!status.ok()) return;
  }
}

void LoadJob::work() {
  status = Model::create(spec_, std::move(arrays_), options_, &model_);
  NamedArrays().swap(arrays_);
}

void LoadJob::deliver(Environment& environment) {
  const napi_env env = environment.env();
  const std::unique_ptr<LoadJob> self(this);
  if (status.ok() && !model_) status = {StatusCode::aborted, "aborted"};
  napi_value arguments[3];
  napi_get_undefined(env, &arguments[2]);
  if (status.ok()) {
    try {
      environment.modelToWrap = std::move(model_);
      arguments[2] = environment.modelClass.New({});
    } catch (const Napi::Error& error) {
      status = {StatusCode::internal, error.Message()};
      napi_get_undefined(env, &arguments[2]);
    }
  }
  napi_create_int32(env, static_cast<int32_t>(status.code), &arguments[0]);
  arguments[1] = stringValue(env, status.message);
  const napi_value done = done_.value(env);
  done_.release(env);
  environment.call(done, 3, arguments);
}

}  // namespace hpformer::addon
