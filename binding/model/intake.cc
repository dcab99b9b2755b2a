#include "intake.h"

#include <cmath>
#include <set>
#include <utility>

#include "sizes.h"
#include "text.h"

namespace hpformer {
namespace {

class Intake {
 public:
  // `own`: the same arrays where they may be emptied, or null.
  Intake(const NamedArrays& arrays, NamedArrays* own) : arrays_(arrays), own_(own) {}

  void take(const std::string& name, std::initializer_list<int64_t> shape, Vector* out) {
    if (!status_.ok()) return;
    int64_t count = 0;
    if (!product(shape, &count)) {
      status_ = {StatusCode::config, name + ": its size overflows"};
      return;
    }
    const auto found = arrays_.find(name);
    if (found == arrays_.end()) {
      fail(name, "is missing");
      return;
    }
    taken_.insert(name);
    const NamedArray& array = found->second;
    if (array.size() != count) {
      fail(name, "expected " + std::to_string(count) + " values, got " + std::to_string(array.size()));
      return;
    }
    if (array.narrow.empty()) {
      if (own_)
        *out = std::move((*own_)[name].wide);
      else
        *out = array.wide;
    } else {
      out->assign(array.narrow.begin(), array.narrow.end());
    }
    if (own_) (*own_)[name] = {};
    for (size_t i = 0; i < out->size(); ++i) {
      if (!std::isfinite((*out)[i])) {
        fail(name, "expected finite values, got " + numberText((*out)[i]) + " at index " + std::to_string(i));
        return;
      }
    }
  }

  void takeNorm(const std::string& name, NormKind kind, int64_t hidden, NormWeights* out) {
    take(name + ".weight", {kind == NormKind::scalenorm ? 1 : hidden}, &out->weight);
    if (kind == NormKind::layernorm || kind == NormKind::batchnorm) take(name + ".bias", {hidden}, &out->bias);
    if (kind == NormKind::batchnorm) {
      take(name + ".mean", {hidden}, &out->mean);
      take(name + ".variance", {hidden}, &out->variance);
      for (const double v : out->variance) {
        if (status_.ok() && v < 0) fail(name + ".variance", "expected no negative value, got " + numberText(v));
      }
    }
  }

  Status finish() {
    if (!status_.ok()) return status_;
    for (const auto& [name, array] : arrays_) {
      if (!taken_.count(name)) return {StatusCode::checkpoint, name + ": the config has no such parameter"};
    }
    return {};
  }

 private:
  void fail(const std::string& name, const std::string& what) {
    status_ = {StatusCode::checkpoint, name + ": " + what};
  }

  const NamedArrays& arrays_;
  NamedArrays* const own_;
  std::set<std::string> taken_;
  Status status_;
};

Status take(Intake intake, const Spec& spec, Weights* out) {
  const int64_t d = spec.hidden;
  switch (spec.embedding) {
    case EmbeddingKind::features: intake.take("embedding.weight", {d, spec.features}, &out->embedding); break;
    case EmbeddingKind::tokens: intake.take("embedding.weight", {spec.vocabulary, d}, &out->embedding); break;
    case EmbeddingKind::scalar: intake.take("embedding.weight", {d}, &out->embedding); break;
  }
  if (spec.embedding != EmbeddingKind::tokens) intake.take("embedding.bias", {d}, &out->embeddingBias);
  if (spec.positions == PositionKind::learned) {
    const int64_t rows = spec.maximum + (spec.embedding == EmbeddingKind::tokens ? spec.padding + 1 : 0);
    intake.take("positions.weight", {rows, d}, &out->positions);
  }
  if (spec.embeddingNorm) intake.takeNorm("embeddingNorm", NormKind::layernorm, d, &out->embeddingNorm);
  intake.take("tdhp.fusion.weight", {d, 2, d}, &out->fusion);
  intake.take("tdhp.fusion.bias", {d}, &out->fusionBias);

  out->layers.resize(static_cast<size_t>(spec.tiedLayers ? 1 : spec.layers));
  for (size_t i = 0; i < out->layers.size(); ++i) {
    LayerWeights& layer = out->layers[i];
    const std::string name = "layers." + std::to_string(i);
    intake.take(name + ".output.weight", {d, d}, &layer.output);
    intake.takeNorm(name + ".norm1", spec.norm, d, &layer.norm1);
    intake.take(name + ".feedForward.weight", {d, d}, &layer.feedForward);
    intake.take(name + ".feedForward.bias", {d}, &layer.feedForwardBias);
    intake.takeNorm(name + ".norm2", spec.norm, d, &layer.norm2);
  }

  int64_t width = spec.headInput();
  out->head.resize(spec.headLayers.size());
  for (size_t j = 0; j < out->head.size(); ++j) {
    const std::string name = "head.layers." + std::to_string(j);
    const int64_t size = spec.headLayers[j].size;
    intake.take(name + ".weight", {size, width}, &out->head[j].weight);
    intake.take(name + ".bias", {size}, &out->head[j].bias);
    width = size;
  }
  intake.take("head.output.weight", {spec.labels, width}, &out->output);
  if (spec.headBias) intake.take("head.output.bias", {spec.labels}, &out->outputBias);
  return intake.finish();
}

}  // namespace

Status takeWeights(const Spec& spec, const NamedArrays& arrays, Weights* out) {
  return take(Intake(arrays, nullptr), spec, out);
}

Status takeWeights(const Spec& spec, NamedArrays&& arrays, Weights* out) {
  return take(Intake(arrays, &arrays), spec, out);
}

}  // namespace hpformer
