#include "reference.h"

#include <algorithm>
#include <exception>
#include <new>

#include "positions.h"
#include "reference_steps.h"
#include "segments.h"

namespace hpformer {
namespace {

using reference::LayerArrays;
using reference::NormArrays;

NormArrays<double> arrays(const NormWeights& w) {
  return {w.weight.data(), w.bias.data(), w.mean.data(), w.variance.data()};
}

LayerArrays<double> arrays(const LayerWeights& w) {
  return {w.output.data(), arrays(w.norm1), w.feedForward.data(), w.feedForwardBias.data(), arrays(w.norm2)};
}

// Writes `used` rows of `width` values and zeros up to `rows`.
void store(const double* from, int64_t used, int64_t rows, int64_t width, double* to) {
  if (!to) return;
  std::copy(from, from + used * width, to);
  std::fill(to + used * width, to + rows * width, 0.0);
}

// One sequence of the batch on its way: embedding, TDHP, layers, readout.
class Sequence {
 public:
  Sequence(const Spec& spec, const Weights& weights, const Feed<double>& feed, const SequenceOutputs<double>& out,
           int64_t index, const CancelFlag& cancel)
      : spec_(spec), weights_(weights), feed_(feed), out_(out), index_(index), cancel_(cancel) {
    padded_ = feed.steps;
    steps_ = spec.over == Over::valid ? feed.lengths[index] : feed.steps;
    tokens_ = feed.tokens ? feed.tokens + index * padded_ : nullptr;
  }

  int64_t steps() const { return steps_; }

  Status prepare() {
    embed();
    return compress();
  }

  // The row of step t after all layers; a padding token's is zero. Fills the per-step outputs of the step.
  // `attention`: [layers, heads, segmentsMax] of this step, or null.
  void encode(int64_t t, double* attention, double* row) {
    const int64_t d = spec_.hidden, stride = out_.segmentsMax;
    std::copy_n(embedded_.data() + t * d, d, row);
    for (int64_t i = 0; i < spec_.layers; ++i) {
      const LayerWeights& w = weights_.layers[static_cast<size_t>(spec_.tiedLayers ? 0 : i)];
      double* p = attention ? attention + i * spec_.heads * stride : nullptr;
      if (p) std::fill(p, p + spec_.heads * stride, 0.0);
      reference::layer(arrays(w), spec_.norm, spec_.activation, keys_.data(), segments_.count, d, spec_.heads, row, p,
                       stride);
      if (out_.layers && out_.layers[i]) std::copy_n(row, d, out_.layers[i] + (index_ * padded_ + t) * d);
    }
    if (isPadding(spec_, tokens_, t)) std::fill(row, row + d, 0.0);
    if (out_.encoded) std::copy_n(row, d, out_.encoded + (index_ * padded_ + t) * d);
  }

  // Runs `use(t, row)` for every step with read(t), and silently for all others when their outputs were asked for.
  template <typename Read, typename Use>
  Status each(bool attentionPerStep, Read read, Use use) {
    const int64_t d = spec_.hidden;
    const int64_t size = spec_.layers * spec_.heads * out_.segmentsMax;
    const bool all = out_.encoded || out_.layers || (attentionPerStep && out_.attention);
    Vector row(static_cast<size_t>(d));
    for (int64_t t = 0; t < padded_; ++t) {
      if (t % 64 == 0 && cancel_.load(std::memory_order_relaxed)) return {StatusCode::aborted, "aborted"};
      double* attention = attentionPerStep && out_.attention ? out_.attention + (index_ * padded_ + t) * size : nullptr;
      if (t >= steps_) {
        if (attention) std::fill(attention, attention + size, 0.0);
        clear(t);
        continue;
      }
      const bool used = read(t);
      if (!used && !all) continue;
      if (used && !attentionPerStep && out_.attention) attention = out_.attention + index_ * size;
      encode(t, attention, row.data());
      if (used) use(t, row.data());
    }
    return {};
  }

 private:
  void clear(int64_t t) {
    const int64_t d = spec_.hidden, at = (index_ * padded_ + t) * d;
    if (out_.encoded) std::fill_n(out_.encoded + at, d, 0.0);
    for (int64_t i = 0; out_.layers && i < spec_.layers; ++i) {
      if (out_.layers[i]) std::fill_n(out_.layers[i] + at, d, 0.0);
    }
  }

  void embed() {
    const int64_t d = spec_.hidden;
    const double scale = inputScale(spec_);
    embedded_.resize(static_cast<size_t>(steps_ * d));
    std::vector<int64_t> positions(static_cast<size_t>(steps_));
    positionsOf(spec_, tokens_, steps_, positions.data());
    Vector position(static_cast<size_t>(d));
    for (int64_t t = 0; t < steps_; ++t) {
      double* row = embedded_.data() + t * d;
      if (isPadding(spec_, tokens_, t)) {
        std::fill(row, row + d, 0.0);
        continue;
      }
      embedStep(t, row);
      positionRow(spec_, weights_, positions[t], position.data());
      for (int64_t i = 0; i < d; ++i) row[i] = row[i] * scale + position[i];
      if (spec_.embeddingNorm) reference::norm(NormKind::layernorm, arrays(weights_.embeddingNorm), d, row);
    }
    if (out_.embedded) store(embedded_.data(), steps_, padded_, d, out_.embedded + index_ * padded_ * d);
  }

  void embedStep(int64_t t, double* row) const {
    const int64_t d = spec_.hidden, at = index_ * padded_ + t;
    const double* w = weights_.embedding.data();
    const double* bias = weights_.embeddingBias.data();
    if (spec_.embedding == EmbeddingKind::features) {
      const double* x = feed_.features + at * spec_.features;
      reference::dense(x, 1, spec_.features, w, bias, d, Activation::linear, row);
    } else if (spec_.embedding == EmbeddingKind::tokens) {
      std::copy_n(w + tokens_[t] * d, d, row);
    } else {
      for (int64_t i = 0; i < d; ++i) row[i] = feed_.values[at] * w[i] + bias[i];
    }
  }

  Status compress() {
    if (Status status = segmentsOf(spec_, steps_, &segments_); !status.ok()) return status;
    const int64_t d = spec_.hidden, count = segments_.count, length = segments_.length, most = out_.segmentsMax;
    const size_t size = static_cast<size_t>(count * d);
    Vector pool(size), extra(size), intra(size);
    Vector among(static_cast<size_t>(count * count)), inside(static_cast<size_t>(steps_));
    keys_.resize(size);
    reference::segmentPool(embedded_.data(), steps_, d, count, length, spec_.pooling, pool.data());
    reference::extraSegmentAttention(pool.data(), count, d, extra.data(), among.data());
    reference::intraSegmentAttention(extra.data(), embedded_.data(), steps_, d, count, length, intra.data(),
                                     inside.data());
    reference::fusion(extra.data(), intra.data(), count, d, weights_.fusion.data(), weights_.fusionBias.data(),
                      keys_.data());

    const auto rows = [&](double* to) { return to ? to + index_ * most * d : nullptr; };
    store(pool.data(), count, most, d, rows(out_.segmentPool));
    store(extra.data(), count, most, d, rows(out_.extraSegment));
    store(intra.data(), count, most, d, rows(out_.intraSegment));
    store(keys_.data(), count, most, d, rows(out_.keys));
    if (out_.segments) out_.segments[index_] = static_cast<int32_t>(count);
    if (out_.intraAttention) store(inside.data(), steps_, padded_, 1, out_.intraAttention + index_ * padded_);
    if (out_.segmentAttention) {
      double* to = out_.segmentAttention + index_ * most * most;
      std::fill_n(to, most * most, 0.0);
      for (int64_t s = 0; s < count; ++s) std::copy_n(among.data() + s * count, count, to + s * most);
    }
    return {};
  }

  const Spec& spec_;
  const Weights& weights_;
  const Feed<double>& feed_;
  const SequenceOutputs<double>& out_;
  const int64_t index_;
  const CancelFlag& cancel_;
  int64_t padded_ = 0, steps_ = 0;  // L, and the steps that exist for this sequence
  const int32_t* tokens_ = nullptr;
  Segments segments_;
  Vector embedded_, keys_;
};

class Run {
 public:
  Run(const Spec& spec, const Weights& weights, const Request<double>& request, const CancelFlag& cancel)
      : spec_(spec), weights_(weights), request_(request), cancel_(cancel) {}

  Status all() {
    for (int64_t b = 0; b < request_.batch; ++b) {
      Status status = spec_.readout == Readout::steps ? everyStep(b) : pooled(b);
      if (!status.ok()) return status;
    }
    return {};
  }

 private:
  Status everyStep(int64_t b) {
    Sequence sequence(spec_, weights_, request_.feed, request_.out, b, cancel_);
    if (Status status = sequence.prepare(); !status.ok()) return status;
    const int64_t at = b * request_.feed.steps;
    Status status = sequence.each(
        true, [](int64_t) { return true; }, [&](int64_t t, const double* row) { head(at + t, row); });
    for (int64_t t = sequence.steps(); t < request_.feed.steps; ++t) clearHead(at + t);
    return status;
  }

  Status pooled(int64_t b) {
    // Upstream order: the second sequence's representation comes first.
    const int64_t d = spec_.hidden;
    Vector input(static_cast<size_t>(spec_.headInput()));
    double* first = input.data() + (spec_.sequences == 2 ? d : 0);
    if (Status status = pool(request_.feed, request_.out, b, first); !status.ok()) return status;
    if (spec_.sequences == 2) {
      if (Status status = pool(request_.second, request_.outSecond, b, input.data()); !status.ok()) return status;
    }
    head(b, input.data());
    return {};
  }

  Status pool(const Feed<double>& feed, const SequenceOutputs<double>& out, int64_t b, double* sum) {
    const int64_t d = spec_.hidden;
    Sequence sequence(spec_, weights_, feed, out, b, cancel_);
    if (Status status = sequence.prepare(); !status.ok()) return status;
    const double* weights = request_.readoutWeights ? request_.readoutWeights + b * feed.steps : nullptr;
    const bool mean = spec_.readout == Readout::mean;
    const bool one = !mean && !weights;
    const int64_t step = one ? request_.step[b] : 0;
    std::fill_n(sum, d, 0.0);
    Status status = sequence.each(
        !one, [&](int64_t t) { return mean || (one ? t == step : weights[t] != 0); },
        [&](int64_t t, const double* row) {
          const double weight = weights ? weights[t] : 1.0;
          for (int64_t i = 0; i < d; ++i) sum[i] += weight * row[i];
        });
    if (mean) {
      // The divisor that was given ('padded'), or the sequence's own length ('valid').
      for (int64_t i = 0; i < d; ++i) sum[i] /= static_cast<double>(feed.lengths[b]);
    }
    if (out.pooled) std::copy_n(sum, d, out.pooled + b * d);
    return status;
  }

  void head(int64_t row, const double* input) {
    Vector x(input, input + spec_.headInput()), y;
    for (size_t j = 0; j < spec_.headLayers.size(); ++j) {
      const HeadLayer& layer = spec_.headLayers[j];
      const HeadLayerWeights& w = weights_.head[j];
      y.resize(static_cast<size_t>(layer.size));
      reference::dense(x.data(), 1, static_cast<int64_t>(x.size()), w.weight.data(), w.bias.data(), layer.size,
                       layer.activation, y.data());
      if (request_.head && request_.head[j]) std::copy_n(y.data(), layer.size, request_.head[j] + row * layer.size);
      x.swap(y);
    }
    y.resize(static_cast<size_t>(spec_.labels));
    reference::dense(x.data(), 1, static_cast<int64_t>(x.size()), weights_.output.data(),
                     spec_.headBias ? weights_.outputBias.data() : nullptr, spec_.labels, Activation::linear, y.data());
    if (request_.logits) std::copy_n(y.data(), spec_.labels, request_.logits + row * spec_.labels);
    if (request_.probabilities) {
      reference::link(spec_.link, y.data(), spec_.labels, request_.probabilities + row * spec_.labels);
    }
  }

  void clearHead(int64_t row) {
    for (size_t j = 0; request_.head && j < spec_.headLayers.size(); ++j) {
      const int64_t size = spec_.headLayers[j].size;
      if (request_.head[j]) std::fill_n(request_.head[j] + row * size, size, 0.0);
    }
    if (request_.logits) std::fill_n(request_.logits + row * spec_.labels, spec_.labels, 0.0);
    if (request_.probabilities) std::fill_n(request_.probabilities + row * spec_.labels, spec_.labels, 0.0);
  }

  const Spec& spec_;
  const Weights& weights_;
  const Request<double>& request_;
  const CancelFlag& cancel_;
};

}  // namespace

Status runReference(const Spec& spec, const Weights& weights, const Request<double>& request,
                    const CancelFlag& cancel) {
  try {
    return Run(spec, weights, request, cancel).all();
  } catch (const std::bad_alloc&) {
    return {StatusCode::memory, "the reference could not allocate its buffers"};
  } catch (const std::exception& error) {
    return {StatusCode::internal, error.what()};
  }
}

}  // namespace hpformer
