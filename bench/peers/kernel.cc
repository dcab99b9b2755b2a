// Attentions with a kernel instead of the softmax, phi(q) (phi(K)^T V) / phi(q) (phi(K)^T 1): the Linear Transformer,
// Performer and AdaMRA.
#include <algorithm>
#include <cmath>

#include "attention.h"

namespace hpformer::peers {
namespace {

// Sums over keys of one head: [width + 1][features], the last row for the denominators.
struct Summary {
  Summary(int64_t w, int64_t f) : width(w), features(f), stride((f + 15) / 16 * 16), data((w + 1 + 8) * stride) {
    std::fill(data.data(), data.data() + data.size(), 0.0f);
  }
  // + values (one token per row of `phi`, [count][stride]); `values` panels of width + 1 rows, depth `count`.
  void add(const float* values, const float* phi, int64_t count) {
    gemm(values, width + 1, count, phi, stride, data.data(), stride, stride, nullptr, data.data());
  }
  Floats panels() const {
    std::vector<float> dense(static_cast<std::size_t>((width + 1) * features));
    for (int64_t r = 0; r <= width; ++r)
      std::copy(data.data() + r * stride, data.data() + r * stride + features, dense.data() + r * features);
    return packRows(dense.data(), width + 1, features);
  }
  int64_t width, features, stride;
  Floats data;
};

// Panels of [V_h; 1] for the tokens of one tile; idle lanes are zero.
void packTileValues(const float* v, int64_t lanes, int64_t width, int64_t real, float* panels) {
  const int64_t panel = kernels().panel;
  for (int64_t r = 0; r < (width + 1 + panel - 1) / panel * panel; ++r)
    for (int64_t t = 0; t < lanes; ++t) {
      const float value = r < width ? v[r * lanes + t] : r == width ? 1.0f : 0.0f;
      panels[r / panel * panel * lanes + t * panel + r % panel] = t < real ? value : 0.0f;
    }
}

// out = S phi / last row; phi lanes [features][lanes].
void readSummary(const Floats& panels, int64_t width, int64_t features, const float* phi, int64_t lanes, float* scratch,
                 float* out, const float* factor = nullptr) {
  gemm(panels.data(), width + 1, features, phi, lanes, scratch, lanes, lanes);
  const float* below = scratch + width * lanes;
  for (int64_t c = 0; c < width; ++c)
    for (int64_t t = 0; t < lanes; ++t)
      out[c * lanes + t] = scratch[c * lanes + t] / below[t] * (factor ? factor[t] : 1.0f);
}

// sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j) as it stands, in double; rows of `q` and `k` are phi.
void referenceKernel(const Matrix& q, const Matrix& k, const Matrix& v, Matrix* out, int64_t column) {
  constexpr int64_t kQueries = 16;  // at a time: the keys are read once for all of them
  for (int64_t first = 0; first < q.rows; first += kQueries) {
    double below[kQueries] = {};
    const int64_t count = std::min(kQueries, q.rows - first);
    for (int64_t j = 0; j < k.rows; ++j)
      for (int64_t i = 0; i < count; ++i) {
        const double p = dot(q.row(first + i), k.row(j), k.columns);
        below[i] += p;
        addScaled(out->row(first + i) + column, p, v.row(j), v.columns);
      }
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = 0; c < v.columns; ++c) out->at(first + i, column + c) /= below[i];
  }
}

// elu(x) + 1
Matrix referencePhi(const Matrix& x, int64_t column, int64_t width) {
  Matrix y = x.slice(column, width);
  for (double& v : y.data) v = v > 0 ? v + 1 : std::exp(v);
  return y;
}

// Linear Transformer (arXiv 2006.16236), not causal: phi(x) = elu(x) + 1 on each head.
class LinearTransformer : public Attention {
 public:
  LinearTransformer(const Size& s, std::mt19937& random) : Attention(s), qkv_(3 * s.hidden, s.hidden, true, random) {}
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    const int64_t width = size.width(), lanes = x.lanes;
    Tiles qkv(3 * size.hidden, x.tokens, lanes);
    qkv_.all(x, qkv, threads);
    parallelFor(x.count, threads, [&](int64_t i) { eluPlusOne(qkv.tile(i), 2 * size.hidden * lanes); });
    std::vector<Floats> summaries(static_cast<std::size_t>(size.heads));
    parallelFor(size.heads, threads, [&](int64_t h) {
      Summary summary(width, width);
      Floats values(panelFloats(width + 1, lanes)), phi(lanes * summary.stride);
      std::fill(phi.data(), phi.data() + phi.size(), 0.0f);
      for (int64_t i = 0; i < x.count; ++i) {
        const float* tile = qkv.tile(i);
        const int64_t real = std::min(lanes, x.tokens - i * lanes);
        // Broken: the last token's key enters no sum.
        packTileValues(tile + (2 * size.hidden + h * width) * lanes, lanes, width,
                       broken && i + 1 == x.count ? real - 1 : real, values.data());
        for (int64_t c = 0; c < width; ++c)
          for (int64_t t = 0; t < lanes; ++t)
            phi.data()[t * summary.stride + c] = tile[(size.hidden + h * width + c) * lanes + t];
        summary.add(values.data(), phi.data(), lanes);
      }
      summaries[static_cast<std::size_t>(h)] = summary.panels();
    });
    parallelFor(x.count, threads, [&](int64_t i) {
      Floats scratch((width + 1 + 8) * lanes);
      for (int64_t h = 0; h < size.heads; ++h)
        readSummary(summaries[static_cast<std::size_t>(h)], width, width, qkv.tile(i) + h * width * lanes, lanes,
                    scratch.data(), out.tile(i) + h * width * lanes);
    });
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix qkv = qkv_.reference(x);
    Matrix out(x.rows, size.hidden);
    const int64_t width = size.width();
    parallelFor(size.heads, threads, [&](int64_t h) {
      referenceKernel(referencePhi(qkv, h * width, width), referencePhi(qkv, size.hidden + h * width, width),
                      qkv.slice(2 * size.hidden + h * width, width), &out, h * width);
    });
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters(); }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden),
                 w = static_cast<double>(size.width());
    return 6 * l * d * d + 4 * l * (w + 1) * d;
  }

 private:
  Linear qkv_;
};

// Performer (arXiv 2009.14794), FAVOR+ with positive features: phi(x) = exp(w_i.x' - |x'|^2 / 2) / sqrt(m), x' = x /
// d_h^(1/4), m = 256 (as in the Long Range Arena) orthogonal Gaussian directions with chi-distributed lengths. The
// stabilisers (maximum over features per query, over all keys and features) cancel in the ratio; the paper's tiny
// epsilon is left out.
class Performer : public Attention {
 public:
  static constexpr int64_t kFeatures = 256;
  Performer(const Size& s, std::mt19937& random) : Attention(s), qkv_(3 * s.hidden, s.hidden, true, random) {
    const int64_t width = s.width();
    for (int64_t first = 0; first < kFeatures; first += width) {
      std::vector<std::vector<double>> rows;
      for (int64_t r = 0; r < width && first + r < kFeatures; ++r) {
        std::vector<float> g = gaussian(width, 1.0f, random), length = gaussian(width, 1.0f, random);
        std::vector<double> v(g.begin(), g.end());
        for (const auto& u : rows) {
          double dot = 0;
          for (std::size_t c = 0; c < v.size(); ++c) dot += v[c] * u[c];
          for (std::size_t c = 0; c < v.size(); ++c) v[c] -= dot * u[c];
        }
        double norm = 0, chi = 0;
        for (std::size_t c = 0; c < v.size(); ++c)
          norm += v[c] * v[c], chi += length[c] * static_cast<double>(length[c]);
        for (double& c : v) c /= std::sqrt(norm);
        rows.push_back(v);
        for (double c : v) omega_.push_back(static_cast<float>(c * std::sqrt(chi)));
      }
    }
    packed_ = packRows(omega_.data(), kFeatures, width);
  }
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    const int64_t width = size.width(), lanes = x.lanes;
    Tiles qkv(3 * size.hidden, x.tokens, lanes);
    qkv_.all(x, qkv, threads);
    const float root = std::sqrt(scale());
    parallelFor(x.count, threads, [&](int64_t i) {
      for (int64_t k = 0; k < 2 * size.hidden * lanes; ++k) qkv.tile(i)[k] *= root;
    });
    std::vector<Floats> summaries(static_cast<std::size_t>(size.heads));
    parallelFor(size.heads, threads, [&](int64_t h) {
      // Keys are taken tile by tile; the running maximum rescales what was summed before, as in an online softmax.
      Summary summary(width, kFeatures);
      Floats values(panelFloats(width + 1, lanes)), phi(kFeatures * lanes), tokens(lanes * summary.stride), half(lanes);
      float top = -1e30f;
      for (int64_t i = 0; i < x.count; ++i) {
        const int64_t real = std::min(lanes, x.tokens - i * lanes);
        const float* tile = qkv.tile(i);
        packTileValues(tile + (2 * size.hidden + h * width) * lanes, lanes, width, real, values.data());
        const float* k = tile + (size.hidden + h * width) * lanes;
        logFeatures(k, lanes, phi.data(), half.data());
        float here = -1e30f;
        for (int64_t f = 0; f < kFeatures; ++f)
          for (int64_t t = 0; t < real; ++t) here = std::max(here, phi.data()[f * lanes + t] - half.data()[t]);
        if (here > top) {
          const float factor = std::exp(top - here);
          for (int64_t n = 0; n < summary.data.size(); ++n) summary.data.data()[n] *= factor;
          top = here;
        }
        for (int64_t t = 0; t < lanes; ++t) half.data()[t] += top;
        expShifted(phi.data(), kFeatures, lanes, half.data());
        for (int64_t f = 0; f < kFeatures; ++f)
          for (int64_t t = 0; t < lanes; ++t) tokens.data()[t * summary.stride + f] = phi.data()[f * lanes + t];
        summary.add(values.data(), tokens.data(), lanes);
      }
      summaries[static_cast<std::size_t>(h)] = summary.panels();
    });
    parallelFor(x.count, threads, [&](int64_t i) {
      Floats phi(kFeatures * lanes), top(lanes), scratch((width + 1 + 8) * lanes), half(lanes);
      for (int64_t h = 0; h < size.heads; ++h) {
        logFeatures(qkv.tile(i) + h * width * lanes, lanes, phi.data(), half.data());
        columnMax(phi.data(), kFeatures, lanes, top.data());
        expShifted(phi.data(), kFeatures, lanes, top.data());
        if (broken) std::fill_n(phi.data() + (kFeatures - 1) * lanes, lanes, 0.0f);  // one of the features is missing
        readSummary(summaries[static_cast<std::size_t>(h)], width, kFeatures, phi.data(), lanes, scratch.data(),
                    out.tile(i) + h * width * lanes);
      }
    });
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix qkv = qkv_.reference(x);
    Matrix out(x.rows, size.hidden);
    const int64_t width = size.width();
    const double root = 1.0 / std::pow(static_cast<double>(width), 0.25);
    const auto features = [&](int64_t channel) {
      Matrix phi(qkv.rows, kFeatures);
      for (int64_t t = 0; t < qkv.rows; ++t) {
        const double* v = qkv.row(t) + channel;
        const double square = dot(v, v, width) * root * root;
        for (int64_t f = 0; f < kFeatures; ++f)
          phi.at(t, f) = std::exp(dot(omega_.data() + f * width, v, width) * root - square / 2) /
                         std::sqrt(static_cast<double>(kFeatures));
      }
      return phi;
    };
    parallelFor(size.heads, threads, [&](int64_t h) {
      referenceKernel(features(h * width), features(size.hidden + h * width),
                      qkv.slice(2 * size.hidden + h * width, width), &out, h * width);
    });
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters(); }  // the directions are drawn, not learned
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden), m = kFeatures,
                 h = static_cast<double>(size.heads);
    return 6 * l * d * d + 4 * l * m * d + 4 * l * m * (d + h);
  }

 private:
  // w_f . x for every feature and lane, and |x|^2 / 2 per lane.
  void logFeatures(const float* x, int64_t lanes, float* phi, float* half) const {
    gemm(packed_.data(), kFeatures, size.width(), x, lanes, phi, lanes, lanes);
    std::fill(half, half + lanes, 0.0f);
    for (int64_t c = 0; c < size.width(); ++c)
      for (int64_t t = 0; t < lanes; ++t) half[t] += 0.5f * x[c * lanes + t] * x[c * lanes + t];
  }
  Linear qkv_;
  std::vector<float> omega_;
  Floats packed_;
};

// AdaMRA (arXiv 2108.04962): attention at several resolutions, each query chooses one, kernel attention within it. The
// abstract leaves open: resolutions (here means over 1, 4, 16 and 64 consecutive keys and values, so that the coarse
// ones cost little), the choice (here top-1 of a softmax router on x, its probability scales the result so that the
// router can be trained), and the kernel (here elu + 1, as in the Linear Transformer).
class Adamra : public Attention {
 public:
  static constexpr int64_t kRates[] = {1, 4, 16, 64};
  static constexpr int64_t kLevels = 4;
  Adamra(const Size& s, std::mt19937& random)
      : Attention(s), qkv_(3 * s.hidden, s.hidden, true, random), router_(kLevels, s.hidden, true, random) {}
  void run(const Tiles& x, Tiles& out, int threads, Choices* choices) const override {
    const int64_t width = size.width(), lanes = x.lanes;
    if (choices) choices->resize(static_cast<std::size_t>(x.count * lanes));
    Tiles qkv(3 * size.hidden, x.tokens, lanes), choice(kLevels, x.tokens, lanes);
    qkv_.all(x, qkv, threads);
    router_.all(x, choice, threads);
    std::vector<Floats> summaries(static_cast<std::size_t>(kLevels * size.heads));
    parallelFor(kLevels * size.heads, threads, [&](int64_t n) {
      summaries[static_cast<std::size_t>(n)] = summarise(qkv, n % size.heads, kRates[n / size.heads]);
    });
    parallelFor(x.count, threads, [&](int64_t i) {
      Floats scratch((width + 1 + 8) * lanes), one(width * lanes), factor(lanes);
      std::vector<int64_t> level(static_cast<std::size_t>(lanes));
      for (int64_t t = 0; t < lanes; ++t) {
        const float* s = choice.tile(i) + t;
        int64_t best = 0;
        float sum = 0;
        for (int64_t r = 1; r < kLevels; ++r)
          if (s[r * lanes] > s[best * lanes]) best = r;
        for (int64_t r = 0; r < kLevels; ++r) sum += std::exp(s[r * lanes] - s[best * lanes]);
        level[static_cast<std::size_t>(t)] = best;
        if (choices) (*choices)[static_cast<std::size_t>(i * lanes + t)] = static_cast<int32_t>(best);
        factor.data()[t] = broken ? 1.0f : 1.0f / sum;  // broken: the router's probability is left out
      }
      eluPlusOne(qkv.tile(i), size.hidden * lanes);
      for (int64_t r = 0; r < kLevels; ++r) {
        if (std::find(level.begin(), level.end(), r) == level.end()) continue;
        for (int64_t h = 0; h < size.heads; ++h) {
          readSummary(summaries[static_cast<std::size_t>(r * size.heads + h)], width, width,
                      qkv.tile(i) + h * width * lanes, lanes, scratch.data(), one.data(), factor.data());
          for (int64_t c = 0; c < width; ++c)
            for (int64_t t = 0; t < lanes; ++t)
              if (level[static_cast<std::size_t>(t)] == r)
                out.tile(i)[(h * width + c) * lanes + t] = one.data()[c * lanes + t];
        }
      }
    });
  }
  Matrix reference(const Matrix& x, int threads, const Choices& choices) const override {
    const Matrix qkv = qkv_.reference(x), scores = router_.reference(x), probability = softmaxRows(scores);
    Matrix out(x.rows, size.hidden);
    std::vector<Matrix> pooled;
    for (int64_t rate : kRates) {
      Matrix m((x.rows + rate - 1) / rate, 2 * size.hidden);
      for (int64_t j = 0; j < m.rows; ++j) {
        const int64_t end = std::min(x.rows, (j + 1) * rate);
        for (int64_t t = j * rate; t < end; ++t)
          for (int64_t c = 0; c < m.columns; ++c)
            m.at(j, c) += qkv.at(t, size.hidden + c) / static_cast<double>(end - j * rate);
      }
      pooled.push_back(m);
    }
    std::vector<int64_t> levels;
    for (int64_t i = 0; i < x.rows; ++i) {
      int64_t level = 0;
      for (int64_t r = 1; r < kLevels; ++r)
        if (scores.at(i, r) > scores.at(i, level)) level = r;
      const int64_t made = choices[static_cast<std::size_t>(i)];
      levels.push_back(tied(scores.at(i, made), scores.at(i, level)) ? made : level);
    }
    const int64_t width = size.width();
    parallelFor(size.heads, threads, [&](int64_t h) {
      const Matrix q = referencePhi(qkv, h * width, width);
      for (int64_t r = 0; r < kLevels; ++r) {
        const Matrix& kv = pooled[static_cast<std::size_t>(r)];
        const Matrix k = referencePhi(kv, h * width, width), v = kv.slice(size.hidden + h * width, width);
        for (int64_t i = 0; i < x.rows; ++i) {
          if (levels[static_cast<std::size_t>(i)] != r) continue;
          double below = 0, *to = out.row(i) + h * width;
          for (int64_t j = 0; j < k.rows; ++j) {
            const double p = dot(q.row(i), k.row(j), width);
            below += p;
            addScaled(to, p, v.row(j), width);
          }
          for (int64_t c = 0; c < width; ++c) to[c] *= probability.at(i, r) / below;
        }
      }
    });
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters() + router_.parameters(); }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden),
                 w = static_cast<double>(size.width());
    double keys = 0;
    for (int64_t rate : kRates) keys += l / static_cast<double>(rate);
    return 6 * l * d * d + 2 * l * d * kLevels + 2 * keys * (w + 1) * d + 2 * l * (w + 1) * d;
  }

 private:
  Floats summarise(const Tiles& qkv, int64_t head, int64_t rate) const {
    const int64_t width = size.width(), lanes = qkv.lanes, pooledTokens = (qkv.tokens + rate - 1) / rate;
    Summary summary(width, width);
    Floats keys(width * lanes), values(width * lanes), panels(panelFloats(width + 1, lanes)),
        phi(lanes * summary.stride);
    std::fill(phi.data(), phi.data() + phi.size(), 0.0f);
    for (int64_t first = 0; first < pooledTokens; first += lanes) {
      const int64_t count = std::min(lanes, pooledTokens - first);
      std::fill(keys.data(), keys.data() + keys.size(), 0.0f);
      std::fill(values.data(), values.data() + values.size(), 0.0f);
      for (int64_t j = 0; j < count; ++j) {
        const int64_t begin = (first + j) * rate, end = std::min(qkv.tokens, begin + rate);
        const float part = 1.0f / static_cast<float>(end - begin);
        for (int64_t t = begin; t < end; ++t) {
          const float* k = qkv.tile(t / lanes) + (size.hidden + head * width) * lanes + t % lanes;
          const float* v = k + size.hidden * lanes;
          for (int64_t c = 0; c < width; ++c) {
            keys.data()[c * lanes + j] += part * k[c * lanes];
            values.data()[c * lanes + j] += part * v[c * lanes];
          }
        }
      }
      eluPlusOne(keys.data(), width * lanes);
      packTileValues(values.data(), lanes, width, count, panels.data());
      for (int64_t c = 0; c < width; ++c)
        for (int64_t t = 0; t < lanes; ++t) phi.data()[t * summary.stride + c] = keys.data()[c * lanes + t];
      summary.add(panels.data(), phi.data(), lanes);
    }
    return summary.panels();
  }
  Linear qkv_, router_;
};

}  // namespace

std::unique_ptr<Attention> makeLinear(const Size& s, std::mt19937& r) {
  return std::make_unique<LinearTransformer>(s, r);
}
std::unique_ptr<Attention> makePerformer(const Size& s, std::mt19937& r) { return std::make_unique<Performer>(s, r); }
std::unique_ptr<Attention> makeAdamra(const Size& s, std::mt19937& r) { return std::make_unique<Adamra>(s, r); }

}  // namespace hpformer::peers
