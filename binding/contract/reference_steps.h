// The steps of the model, one function each, on plain row-major arrays of float or double; arithmetic is always double.
// The reference is made of the double forms; `kernels.*` offers both as the unfused kernels.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "math.h"
#include "spec.h"

namespace hpformer::reference {

template <typename Real>
double dot(const Real* a, const Real* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// In place, over n >= 1 values. One NaN makes all of them NaN.
inline void softmax(double* v, int64_t n) {
  double top = v[0];
  for (int64_t i = 1; i < n; ++i) top = std::max(top, v[i]);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += v[i] = std::exp(v[i] - top);
  for (int64_t i = 0; i < n; ++i) v[i] /= sum;
}

// y[rows, out] = act(x[rows, in] w[out, in]^T + bias[out]); bias may be null.
template <typename Real>
void dense(const Real* x, int64_t rows, int64_t in, const Real* w, const Real* bias, int64_t out, Activation activation,
           Real* y) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out; ++o) {
      const double z = dot(x + r * in, w + o * in, in) + (bias ? static_cast<double>(bias[o]) : 0.0);
      y[r * out + o] = static_cast<Real>(activate(activation, z));
    }
  }
}

template <typename Real>
struct NormArrays {
  const Real* weight = nullptr;  // [d]; scalenorm: [1]
  const Real* bias = nullptr;    // layernorm, batchnorm
  const Real* mean = nullptr;    // batchnorm: running statistics
  const Real* variance = nullptr;
};

// In place on one row of d values.
template <typename Real>
void norm(NormKind kind, const NormArrays<Real>& w, int64_t d, Real* row) {
  const double width = static_cast<double>(d);
  if (kind == NormKind::batchnorm) {
    for (int64_t i = 0; i < d; ++i) {
      const double scaled = (row[i] - static_cast<double>(w.mean[i])) / std::sqrt(w.variance[i] + kNormEpsilon);
      row[i] = static_cast<Real>(scaled * w.weight[i] + w.bias[i]);
    }
    return;
  }
  double mean = 0;
  if (kind == NormKind::layernorm) {
    for (int64_t i = 0; i < d; ++i) mean += row[i];
    mean /= width;
  }
  double square = 0;
  for (int64_t i = 0; i < d; ++i) square += (row[i] - mean) * (row[i] - mean);
  const double scale = 1.0 / std::sqrt(square / width + kNormEpsilon);
  for (int64_t i = 0; i < d; ++i) {
    const double unit = (row[i] - mean) * scale;
    const double weight = w.weight[kind == NormKind::scalenorm ? 0 : i];
    row[i] = static_cast<Real>(kind == NormKind::layernorm ? unit * weight + w.bias[i] : unit * weight);
  }
}

// pool[count, d] of x[steps, d] in segments of `length` rows; rows after the last step are zeros that take part.
template <typename Real>
void segmentPool(const Real* x, int64_t steps, int64_t d, int64_t count, int64_t length, Pooling pooling, Real* pool) {
  for (int64_t s = 0; s < count; ++s) {
    const int64_t begin = s * length, end = std::min(steps, begin + length);
    for (int64_t i = 0; i < d; ++i) {
      double value = 0;
      if (pooling == Pooling::mean) {
        for (int64_t t = begin; t < end; ++t) value += x[t * d + i];
        value /= static_cast<double>(length);
      } else {
        const bool hasZeroRow = end - begin < length;
        value = hasZeroRow ? 0.0 : x[begin * d + i];
        for (int64_t t = begin; t < end; ++t) {
          const double v = x[t * d + i];
          if (v > value || std::isnan(v)) value = v;
          if (std::isnan(value)) break;
        }
      }
      pool[s * d + i] = static_cast<Real>(value);
    }
  }
}

// extra[count, d] = softmax(m m^T / sqrt(d)) m. `weights` [count, count] (row = query) may be null.
template <typename Real>
void extraSegmentAttention(const Real* m, int64_t count, int64_t d, Real* extra, Real* weights) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  std::vector<double> p(static_cast<size_t>(count)), sum(static_cast<size_t>(d));
  for (int64_t q = 0; q < count; ++q) {
    for (int64_t s = 0; s < count; ++s) p[s] = dot(m + q * d, m + s * d, d) * scale;
    softmax(p.data(), count);
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t s = 0; s < count; ++s) {
      for (int64_t i = 0; i < d; ++i) sum[i] += p[s] * m[s * d + i];
      if (weights) weights[q * count + s] = static_cast<Real>(p[s]);
    }
    for (int64_t i = 0; i < d; ++i) extra[q * d + i] = static_cast<Real>(sum[i]);
  }
}

// intra[count, d]: each extra row asks the `length` rows of its own segment; appended zero rows are not masked.
// `weights` [steps] (the weight of each real step inside its segment) may be null.
template <typename Real>
void intraSegmentAttention(const Real* extra, const Real* x, int64_t steps, int64_t d, int64_t count, int64_t length,
                           Real* intra, Real* weights) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  std::vector<double> p(static_cast<size_t>(length)), sum(static_cast<size_t>(d));
  for (int64_t s = 0; s < count; ++s) {
    const int64_t begin = s * length, real = std::clamp<int64_t>(steps - begin, 0, length);
    // An appended row scores E·0, which is 0 unless E itself is not finite.
    const double zeroScore = 0.0 * dot(extra + s * d, extra + s * d, d);
    for (int64_t t = 0; t < length; ++t)
      p[t] = t < real ? dot(extra + s * d, x + (begin + t) * d, d) * scale : zeroScore;
    softmax(p.data(), length);
    std::fill(sum.begin(), sum.end(), real < length ? p[real] * 0.0 : 0.0);
    for (int64_t t = 0; t < real; ++t) {
      for (int64_t i = 0; i < d; ++i) sum[i] += p[t] * x[(begin + t) * d + i];
      if (weights) weights[begin + t] = static_cast<Real>(p[t]);
    }
    for (int64_t i = 0; i < d; ++i) intra[s * d + i] = static_cast<Real>(sum[i]);
  }
}

// keys[count, d] = [extra ; intra] w[d, 2d]^T + bias[d], the extra part first.
template <typename Real>
void fusion(const Real* extra, const Real* intra, int64_t count, int64_t d, const Real* w, const Real* bias,
            Real* keys) {
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t o = 0; o < d; ++o) {
      const Real* row = w + o * 2 * d;
      keys[s * d + o] = static_cast<Real>(dot(extra + s * d, row, d) + dot(intra + s * d, row + d, d) + bias[o]);
    }
  }
}

// One row x[d] against keys[count, d], head by head; the keys are the values. `weights` [heads, stride] (the first
// `count` of each row are written) may be null.
template <typename Real>
void keyAttention(const Real* x, const Real* keys, int64_t count, int64_t d, int64_t heads, Real* out, Real* weights,
                  int64_t stride) {
  const int64_t width = d / heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(width));
  std::vector<double> p(static_cast<size_t>(count));
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t column = h * width;
    for (int64_t s = 0; s < count; ++s) p[s] = dot(x + column, keys + s * d + column, width) * scale;
    softmax(p.data(), count);
    for (int64_t i = 0; i < width; ++i) {
      double sum = 0;
      for (int64_t s = 0; s < count; ++s) sum += p[s] * keys[s * d + column + i];
      out[column + i] = static_cast<Real>(sum);
    }
    if (weights) {
      for (int64_t s = 0; s < count; ++s) weights[h * stride + s] = static_cast<Real>(p[s]);
    }
  }
}

template <typename Real>
struct LayerArrays {
  const Real* output = nullptr;  // [d, d]
  NormArrays<Real> norm1;
  const Real* feedForward = nullptr;      // [d, d]
  const Real* feedForwardBias = nullptr;  // [d]
  NormArrays<Real> norm2;
};

// One row through one HPformer layer, in place: z = norm2(y + act(y W1^T + c1)), y = norm1(x + attention(x) Wo^T).
template <typename Real>
void layer(const LayerArrays<Real>& w, NormKind kind, Activation activation, const Real* keys, int64_t count, int64_t d,
           int64_t heads, Real* x, Real* weights, int64_t stride) {
  std::vector<Real> a(static_cast<size_t>(d)), branch(static_cast<size_t>(d));
  keyAttention(x, keys, count, d, heads, a.data(), weights, stride);
  dense<Real>(a.data(), 1, d, w.output, nullptr, d, Activation::linear, branch.data());
  for (int64_t i = 0; i < d; ++i) x[i] += branch[i];
  norm(kind, w.norm1, d, x);
  dense<Real>(x, 1, d, w.feedForward, w.feedForwardBias, d, activation, branch.data());
  for (int64_t i = 0; i < d; ++i) x[i] += branch[i];
  norm(kind, w.norm2, d, x);
}

// probabilities[labels] of logits[labels].
template <typename Real>
void link(Link kind, const Real* logits, int64_t labels, Real* probabilities) {
  if (kind == Link::softmax) {
    std::vector<double> p(logits, logits + labels);
    softmax(p.data(), labels);
    for (int64_t i = 0; i < labels; ++i) probabilities[i] = static_cast<Real>(p[i]);
    return;
  }
  for (int64_t i = 0; i < labels; ++i) {
    probabilities[i] = kind == Link::sigmoid ? static_cast<Real>(sigmoid(logits[i])) : logits[i];
  }
}

}  // namespace hpformer::reference
