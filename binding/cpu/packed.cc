#include "packed.h"

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>

#include "binding/contract/positions.h"

namespace hpformer {
uint16_t bfloat16Bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

namespace {

float toBfloat16(float x) {
  const uint32_t bits = static_cast<uint32_t>(bfloat16Bits(x)) << 16;
  std::memcpy(&x, &bits, 4);
  return x;
}

}  // namespace

Floats Packed::panels(const double* source, int64_t rows, int64_t columns, bool rounded) {
  const int64_t panel = level.panel, blocks = (rows + panel - 1) / panel;
  Floats out(blocks * columns * panel);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < columns; ++k) {
      const float v = static_cast<float>(source[r * columns + k]);
      out.data()[(r / panel * columns + k) * panel + r % panel] = rounded ? toBfloat16(v) : v;
    }
  bytes += out.size() * 4;
  return out;
}

// In bfloat16 without tiles the small products stay in float32: they gain no time, and rounded they took one random
// model in 400 beyond the bound. A level with neither tiles nor fixed point multiplies rounded weights with float32
// activations. Small products gain nothing from three parts.
PackedMatrix Packed::matrix(const double* source, int64_t rows, int64_t columns, Use use) {
  const bool halves = precision == Precision::bfloat16, fixed = halves && columns <= level.fixedDepth;
  PackedMatrix m;
  if (fixed && use != Use::small) addFixed(&m, source, rows, columns);
  if (!fixed || use != Use::layer) m.panels = panels(source, rows, columns, halves && !fixed && use != Use::small);
  if (halves || use != Use::small) addTiles(&m, source, rows, columns, halves ? 1 : 3);
  return m;
}

void Packed::addFixed(PackedMatrix* m, const double* source, int64_t rows, int64_t columns) {
  const int64_t padded = (rows + level.panel - 1) / level.panel * level.panel;
  Floats exact(rows * columns);
  std::transform(source, source + rows * columns, exact.data(), [](double v) { return static_cast<float>(v); });
  m->pairs = Aligned<int32_t>(padded * ((columns + 1) / 2));
  m->scale = Floats(padded);
  m->limit = level.packFixed(exact.data(), columns, rows, columns, m->pairs.data(), m->scale.data());
  bytes += 4 * (m->pairs.size() + m->scale.size());
}

// Keys are what all tokens share: bfloat16 is too coarse for them, fixed point is not.
PackedMatrix Packed::keyMatrix(const double* source, int64_t rows, int64_t columns) {
  PackedMatrix m;
  if (precision == Precision::bfloat16 && columns <= level.fixedDepth) {
    addFixed(&m, source, rows, columns);
    return m;
  }
  m.panels = panels(source, rows, columns);
  addTiles(&m, source, rows, columns, 3);
  return m;
}

void Packed::addTiles(PackedMatrix* m, const double* source, int64_t rows, int64_t columns, int parts) {
  if (columns > level.tileDepth) return;
  const int64_t depth = (columns + 31) / 32, size = (rows + 15) / 16 * depth * 512;
  m->tiles = Aligned<uint16_t>(parts * size);
  m->part = parts > 1 ? size : 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < columns; ++k) {
      uint16_t* to = m->tiles.data() + (r / 16 * depth + k / 32) * 512 + r % 16 * 32 + k % 32;
      float v = static_cast<float>(source[r * columns + k]);
      for (int p = 0; p < parts; ++p, to += size) {
        *to = bfloat16Bits(v);
        v -= toBfloat16(v);
      }
    }
  bytes += m->tiles.size() * 2;
}

Floats Packed::copy(const Vector& source, double scale) {
  Floats out(static_cast<int64_t>(source.size()));
  for (size_t i = 0; i < source.size(); ++i) out.data()[i] = static_cast<float>(source[i] * scale);
  bytes += out.size() * 4;
  return out;
}

PackedNorm Packed::norm(const NormWeights& source, bool fold) {
  PackedNorm n;
  Vector weight = source.weight, bias = source.bias;
  switch (spec.norm) {
    case NormKind::layernorm: n.form = NormForm::layernorm; break;
    case NormKind::rmsnorm: n.form = NormForm::rms; break;
    case NormKind::scalenorm:
      n.form = NormForm::rms;
      weight.assign(static_cast<size_t>(spec.hidden), source.weight[0]);
      break;
    case NormKind::batchnorm:
      n.form = fold ? NormForm::affine : NormForm::batchnorm;
      if (!fold) {
        n.mean = copy(source.mean);
        n.variance = copy(source.variance);
        break;
      }
      for (size_t i = 0; i < weight.size(); ++i) {
        weight[i] = source.weight[i] / std::sqrt(source.variance[i] + kNormEpsilon);
        bias[i] = source.bias[i] - source.mean[i] * weight[i];
      }
      break;
  }
  n.weight = copy(weight);
  if (!bias.empty()) n.bias = copy(bias);
  return n;
}

Packed::Packed(const Spec& s, std::shared_ptr<const Weights> shared, Precision operands)
    : spec(s), precision(operands), level(kernels()), weights(std::move(shared)) {
  const Weights& w = *weights;
  const int64_t d = spec.hidden, f = spec.features;
  const double scale = inputScale(spec);
  Vector scaled = w.embedding;
  for (double& v : scaled) v *= scale;
  if (spec.embedding == EmbeddingKind::features) {
    embedding = matrix(scaled.data(), d, f, Use::small);
  } else {
    embedding.panels = copy(scaled);
  }
  embeddingBias = copy(w.embeddingBias, scale);
  if (spec.embeddingNorm) {
    embeddingNorm.weight = copy(w.embeddingNorm.weight);
    embeddingNorm.bias = copy(w.embeddingNorm.bias);
  }
  fusion = keyMatrix(w.fusion.data(), d, 2 * d);
  fusionBias = copy(w.fusionBias);
  for (const LayerWeights& l : w.layers) {
    PackedLayer p;
    p.output = matrix(l.output.data(), d, d, Use::mixed);
    p.feedForward = matrix(l.feedForward.data(), d, d, Use::layer);
    p.feedForwardBias = copy(l.feedForwardBias);
    p.norm1 = norm(l.norm1, true);
    p.norm2 = norm(l.norm2, true);
    layers.push_back(std::move(p));
    if (spec.norm == NormKind::batchnorm) {
      plainNorms.push_back(norm(l.norm1, false));
      plainNorms.push_back(norm(l.norm2, false));
    }
  }
  int64_t input = spec.headInput();
  for (size_t j = 0; j < spec.headLayers.size(); ++j) {
    PackedHead h;
    h.size = spec.headLayers[j].size;
    h.input = input;
    h.activation = spec.headLayers[j].activation;
    h.weight = matrix(w.head[j].weight.data(), h.size, input, Use::small);
    h.bias = copy(w.head[j].bias);
    input = h.size;
    head.push_back(std::move(h));
  }
  PackedHead out;
  out.size = spec.labels;
  out.input = input;
  out.weight = matrix(w.output.data(), spec.labels, input, Use::small);
  if (spec.headBias) out.bias = copy(w.outputBias);
  head.push_back(std::move(out));

  absorbs = spec.embedding == EmbeddingKind::features && spec.pooling == Pooling::mean && !spec.embeddingNorm;
  if (absorbs) {
    Vector g(static_cast<size_t>(f * f), 0.0), fw(static_cast<size_t>(d * 2 * f), 0.0);
    for (int64_t o = 0; o < d; ++o)
      for (int64_t i = 0; i < f; ++i)
        for (int64_t j = 0; j < f; ++j)
          g[static_cast<size_t>(i * f + j)] +=
              scaled[static_cast<size_t>(o * f + i)] * scaled[static_cast<size_t>(o * f + j)];
    for (int64_t o = 0; o < d; ++o)
      for (int64_t k = 0; k < d; ++k)
        for (int64_t j = 0; j < f; ++j) {
          fw[static_cast<size_t>(o * 2 * f + j)] +=
              w.fusion[static_cast<size_t>(o * 2 * d + k)] * scaled[static_cast<size_t>(k * f + j)];
          fw[static_cast<size_t>(o * 2 * f + f + j)] +=
              w.fusion[static_cast<size_t>(o * 2 * d + d + k)] * scaled[static_cast<size_t>(k * f + j)];
        }
    gram = panels(g.data(), f, f);
    fused = keyMatrix(fw.data(), d, 2 * f);
  }
  tables = std::make_unique<Tables>(spec, weights, absorbs);
}

std::shared_ptr<const Packed> Packed::get(const Spec& spec, std::shared_ptr<const Weights> weights,
                                          const std::string& key, Precision precision) {
  if (key.empty()) return std::make_shared<Packed>(spec, std::move(weights), precision);
  static std::mutex& mutex = *new std::mutex;
  static auto& known = *new std::map<std::string, std::weak_ptr<const Packed>>;
  const std::string id = key + (precision == Precision::bfloat16 ? "/bfloat16/" : "/float32/") + kernels().isa;
  std::lock_guard<std::mutex> lock(mutex);
  if (auto found = known[id].lock()) return found;
  for (auto it = known.begin(); it != known.end();) it = it->second.expired() ? known.erase(it) : std::next(it);
  auto made = std::make_shared<const Packed>(spec, std::move(weights), precision);
  known[id] = made;
  return made;
}

}  // namespace hpformer
