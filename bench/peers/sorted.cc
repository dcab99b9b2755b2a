// Attentions that bring related tokens together first: Reformer by hashing, Sinkhorn by a learned soft permutation of
// blocks.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "attention.h"

namespace hpformer::peers {
namespace {

// Reformer (arXiv 2001.04451), LSH attention with shared query and key, chunks of 64, 4 rounds of hashing, not causal.
// Keys are normalised; a token attends its own chunk and the one before in the order (bucket, position), within its
// bucket; itself only with a penalty of 1e5; rounds are weighted by their softmax denominators. Pairs that meet in
// several rounds count in each, as in common implementations (the paper's N_ij correction is left out). About L / 64
// buckets.
class Reformer : public Attention {
 public:
  static constexpr int64_t kChunk = 64, kRounds = 4;
  static constexpr float kSelf = 1e5f;
  Reformer(const Size& s, std::mt19937& random)
      : Attention(s),
        qv_(2 * s.hidden, s.hidden, true, random),
        half_(std::max<int64_t>(1, (s.steps + 2 * kChunk - 1) / (2 * kChunk))) {
    for (int64_t n = 0; n < s.heads * kRounds; ++n) {
      rotation_.push_back(gaussian(half_ * s.width(), 1.0f, random));
      packed_.push_back(packRows(rotation_.back().data(), half_, s.width()));
    }
  }
  void run(const Tiles& x, Tiles& out, int threads, Choices* choices) const override {
    if (choices) choices->resize(static_cast<std::size_t>(size.heads * kRounds * x.tokens));
    Tiles qv(2 * size.hidden, x.tokens, x.lanes);
    qv_.all(x, qv, threads);
    Tiles keys(size.hidden, x.tokens, x.lanes);
    parallelFor(x.count, threads, [&](int64_t i) { normalise(qv.tile(i), keys.tile(i), x.lanes); });
    parallelFor(size.heads, threads, [&](int64_t h) { runHead(qv, keys, h, out, choices); });
  }
  Matrix reference(const Matrix& x, int threads, const Choices& choices) const override {
    const Matrix qv = qv_.reference(x);
    Matrix out(x.rows, size.hidden);
    const int64_t width = size.width(), l = x.rows;
    const double factor = 1.0 / std::sqrt(static_cast<double>(width));
    parallelFor(size.heads, threads, [&](int64_t h) {
      std::vector<double> total(static_cast<std::size_t>(l), 0.0);
      Matrix sum(l, width);
      // Two passes: the weights of the rounds need a common maximum.
      std::vector<double> top(static_cast<std::size_t>(l), -1e300);
      for (const bool first : {true, false})
        for (int64_t round = 0; round < kRounds; ++round) {
          std::vector<int64_t> bucket(static_cast<std::size_t>(l)), order(static_cast<std::size_t>(l));
          for (int64_t t = 0; t < l; ++t)
            bucket[static_cast<std::size_t>(t)] =
                referenceBucket(qv, h, round, t, choices[static_cast<std::size_t>((h * kRounds + round) * l + t)]);
          std::iota(order.begin(), order.end(), 0);
          std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
            return bucket[static_cast<std::size_t>(a)] < bucket[static_cast<std::size_t>(b)];
          });
          const int64_t chunks = (l + kChunk - 1) / kChunk;
          for (int64_t at = 0; at < l; ++at) {
            const int64_t i = order[static_cast<std::size_t>(at)], own = at / kChunk,
                          before = (own + chunks - 1) % chunks;
            std::vector<std::pair<int64_t, double>> pairs;
            double best = -1e300;
            for (int64_t chunk = 0; chunk < chunks; ++chunk) {
              if (chunk != own && chunk != before) continue;
              for (int64_t b = chunk * kChunk; b < std::min(l, (chunk + 1) * kChunk); ++b) {
                const int64_t j = order[static_cast<std::size_t>(b)];
                if (bucket[static_cast<std::size_t>(j)] != bucket[static_cast<std::size_t>(i)]) continue;
                const double *q = qv.row(i) + h * width, *k = qv.row(j) + h * width;
                const double s = dot(q, k, width) / std::sqrt(dot(k, k, width)) * factor - (i == j ? kSelf : 0.0);
                pairs.emplace_back(j, s);
                best = std::max(best, s);
              }
            }
            double below = 0;
            for (const auto& p : pairs) below += std::exp(p.second - best);
            const double lse = best + std::log(below);
            if (first) {
              top[static_cast<std::size_t>(i)] = std::max(top[static_cast<std::size_t>(i)], lse);
              continue;
            }
            const double weight = std::exp(lse - top[static_cast<std::size_t>(i)]);
            total[static_cast<std::size_t>(i)] += weight;
            for (const auto& p : pairs)
              for (int64_t c = 0; c < width; ++c)
                sum.at(i, c) += weight * std::exp(p.second - lse) * qv.at(p.first, size.hidden + h * width + c);
          }
        }
      for (int64_t i = 0; i < l; ++i)
        for (int64_t c = 0; c < width; ++c)
          out.at(i, h * width + c) = sum.at(i, c) / total[static_cast<std::size_t>(i)];
    });
    return out;
  }
  int64_t parameters() const override { return qv_.parameters(); }  // rotations are drawn, not learned
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden), r = kRounds;
    return 4 * l * d * d + r * (2 * l * static_cast<double>(half_) * d + 4 * l * 2 * kChunk * d);
  }

 private:
  void normalise(const float* q, float* k, int64_t lanes) const {
    const int64_t width = size.width();
    std::vector<float> norm(static_cast<std::size_t>(lanes));
    for (int64_t h = 0; h < size.heads; ++h) {
      std::fill(norm.begin(), norm.end(), 1e-30f);
      const float* from = q + h * width * lanes;
      float* to = k + h * width * lanes;
      for (int64_t c = 0; c < width; ++c)
        for (int64_t t = 0; t < lanes; ++t)
          norm[static_cast<std::size_t>(t)] += from[c * lanes + t] * from[c * lanes + t];
      for (float& n : norm) n = 1.0f / std::sqrt(n);
      for (int64_t c = 0; c < width; ++c)
        for (int64_t t = 0; t < lanes; ++t) to[c * lanes + t] = from[c * lanes + t] * norm[static_cast<std::size_t>(t)];
    }
  }
  void runHead(const Tiles& qv, const Tiles& keys, int64_t h, Tiles& out, Choices* choices) const {
    const int64_t l = qv.tokens, lanes = qv.lanes, width = size.width(), channel = h * width, panel = kernels().panel;
    const int64_t chunks = (l + kChunk - 1) / kChunk;
    std::vector<int32_t> bucket(static_cast<std::size_t>(l));
    std::vector<int64_t> order(static_cast<std::size_t>(l)), starts;
    std::vector<float> top(static_cast<std::size_t>(l)), total(static_cast<std::size_t>(l), 0.0f);
    Floats sum(l * width), rotated((half_ + 8) * lanes), packedKeys(panelFloats(3 * kChunk, width));
    Floats packedValues(panelFloats(width, 3 * kChunk)), q(width * kChunk), result(width * kChunk), lse(kChunk);
    std::fill(sum.data(), sum.data() + sum.size(), 0.0f);
    std::fill(top.begin(), top.end(), TileAttention::kMasked);
    TileAttention attention(width, kChunk, 2 * kChunk);
    for (int64_t round = 0; round < (broken ? kRounds - 1 : kRounds);
         ++round) {  // broken: a round of hashing is missing
      const Floats& rotation = packed_[static_cast<std::size_t>(h * kRounds + round)];
      for (int64_t i = 0; i < qv.count; ++i) {
        gemm(rotation.data(), half_, width, qv.tile(i) + channel * lanes, lanes, rotated.data(), lanes, lanes);
        for (int64_t t = 0; t < lanes && i * lanes + t < l; ++t) {
          int32_t best = 0;
          float most = -1e30f;
          for (int64_t b = 0; b < half_; ++b) {
            const float v = rotated.data()[b * lanes + t];
            if (v > most) most = v, best = static_cast<int32_t>(b);
            if (-v > most) most = -v, best = static_cast<int32_t>(half_ + b);
          }
          bucket[static_cast<std::size_t>(i * lanes + t)] = best;
        }
      }
      if (choices) std::copy(bucket.begin(), bucket.end(), choices->begin() + (h * kRounds + round) * l);
      // Counting sort: stable by position.
      starts.assign(static_cast<std::size_t>(2 * half_ + 1), 0);
      for (int32_t b : bucket) ++starts[static_cast<std::size_t>(b) + 1];
      std::partial_sum(starts.begin(), starts.end(), starts.begin());
      for (int64_t t = 0; t < l; ++t)
        order[static_cast<std::size_t>(starts[static_cast<std::size_t>(bucket[static_cast<std::size_t>(t)])]++)] = t;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t before = (chunk + chunks - 1) % chunks, own = std::min(kChunk, l - chunk * kChunk);
        const int64_t more = before == chunk ? 0 : std::min(kChunk, l - before * kChunk), count = own + more;
        const auto token = [&](int64_t j) {
          return order[static_cast<std::size_t>(j < own ? chunk * kChunk + j : before * kChunk + j - own)];
        };
        packKeys(keys, channel, width, count, token, packedKeys.data());
        packValues(qv, size.hidden + channel, width, count, token, packedValues.data());
        for (int64_t c = 0; c < width; ++c)
          for (int64_t t = 0; t < kChunk; ++t) q.data()[c * kChunk + t] = t < own ? qv.at(channel + c, token(t)) : 0.0f;
        attention.begin(q.data(), scale());
        attention.block(packedKeys.data(), packedValues.data(), count, count, nullptr, [&](float* s) {
          for (int64_t j = 0; j < count; ++j) {
            const int32_t b = bucket[static_cast<std::size_t>(token(j))];
            for (int64_t t = 0; t < own; ++t)
              if (bucket[static_cast<std::size_t>(token(t))] != b) s[j * kChunk + t] = TileAttention::kMasked;
            if (j < own) s[j * kChunk + j] -= kSelf;
          }
        });
        attention.finish(result.data(), lse.data());
        for (int64_t t = 0; t < own; ++t) {
          const auto i = static_cast<std::size_t>(token(t));
          const float now = std::max(top[i], lse.data()[t]), old = std::exp(top[i] - now),
                      weight = std::exp(lse.data()[t] - now);
          top[i] = now;
          total[i] = total[i] * old + weight;
          for (int64_t c = 0; c < width; ++c) {
            float& s = sum.data()[static_cast<int64_t>(i) * width + c];
            s = s * old + weight * result.data()[c * kChunk + t];
          }
        }
      }
    }
    static_cast<void>(panel);
    for (int64_t t = 0; t < l; ++t)
      for (int64_t c = 0; c < width; ++c)
        out.at(channel + c, t) = sum.data()[t * width + c] / total[static_cast<std::size_t>(t)];
  }
  int64_t referenceBucket(const Matrix& qv, int64_t h, int64_t round, int64_t t, int64_t made) const {
    const std::vector<float>& r = rotation_[static_cast<std::size_t>(h * kRounds + round)];
    int64_t best = 0;
    double most = -1e300, chosen = -1e300;
    for (int64_t b = 0; b < half_; ++b) {
      const double v = dot(r.data() + b * size.width(), qv.row(t) + h * size.width(), size.width());
      if (v > most) most = v, best = b;
      if (-v > most) most = -v, best = half_ + b;
      if (made % half_ == b) chosen = made == b ? v : -v;
    }
    return tied(chosen, most) ? made : best;
  }
  Linear qv_;
  int64_t half_;
  std::vector<std::vector<float>> rotation_;
  std::vector<Floats> packed_;
};

// Sparse Sinkhorn attention (arXiv 2002.11296): blocks of 64 tokens; a two-layer sorting network on the sum of a
// block's rows gives scores over all blocks, 8 rounds of Sinkhorn normalisation in the log domain make a soft
// permutation (temperature 0.75, no noise at inference), and a query attends its own block together with the permuted
// one in one softmax. One sorting network per layer, shared by the heads. Rows that the last block lacks count as zeros
// in the mixture.
class Sinkhorn : public Attention {
 public:
  static constexpr int64_t kBlock = 64, kIterations = 8;
  static constexpr double kTemperature = 0.75;
  Sinkhorn(const Size& s, std::mt19937& random)
      : Attention(s),
        blocks_((s.steps + kBlock - 1) / kBlock),
        qkv_(3 * s.hidden, s.hidden, true, random),
        first_(s.hidden, s.hidden, true, random),
        second_(blocks_, s.hidden, true, random) {}
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    const int64_t width = size.width(), lanes = x.lanes, d = size.hidden;
    // The same rows in tiles of one block each.
    Tiles rows(d, x.tokens, kBlock), qkv(3 * d, x.tokens, kBlock), sorted(2 * d, x.tokens, kBlock);
    parallelFor(rows.count, threads, [&](int64_t b) {
      for (int64_t t = 0; t < kBlock && b * kBlock + t < x.tokens; ++t) {
        const int64_t token = b * kBlock + t;
        const float* from = x.tile(token / lanes) + token % lanes;
        for (int64_t c = 0; c < d; ++c) rows.tile(b)[c * kBlock + t] = from[c * lanes];
      }
    });
    qkv_.all(rows, qkv, threads);
    const int64_t tail = x.tokens - (blocks_ - 1) * kBlock;
    for (int64_t c = d; c < 3 * d; ++c)
      for (int64_t t = tail; t < kBlock; ++t) qkv.tile(blocks_ - 1)[c * kBlock + t] = 0.0f;
    Matrix pooled(blocks_, d);
    for (int64_t b = 0; b < blocks_; ++b)
      for (int64_t c = 0; c < d; ++c)
        for (int64_t t = 0; t < kBlock; ++t) pooled.at(b, c) += rows.tile(b)[c * kBlock + t];
    const Matrix p = permutation(pooled);
    std::vector<float> mixture(p.data.begin(), p.data.end());
    const Floats panels = packRows(mixture.data(), blocks_, blocks_);
    // sorted block i = sum_j P_ij block j: a row of the operand is a whole block of keys and values.
    const int64_t stride = 3 * d * kBlock, columns = 2 * d * kBlock, part = 512;
    parallelFor(columns / part, threads, [&](int64_t i) {
      gemm(panels.data(), blocks_, blocks_, qkv.data.data() + d * kBlock + i * part, stride,
           sorted.data.data() + i * part, columns, part);
    });
    parallelFor(blocks_, threads, [&](int64_t b) {
      TileAttention attention(width, kBlock, kBlock);
      const int64_t real = b + 1 < blocks_ ? kBlock : tail;
      Floats keys(panelFloats(kBlock, width)), values(panelFloats(width, kBlock)), result(width * kBlock);
      const auto token = [&](int64_t j) { return b * kBlock + j; };
      for (int64_t h = 0; h < size.heads; ++h) {
        attention.begin(qkv.tile(b) + h * width * kBlock, scale());
        packKeys(qkv, d + h * width, width, real, token, keys.data());
        packValues(qkv, 2 * d + h * width, width, real, token, values.data());
        attention.block(keys.data(), values.data(), real, real);
        packKeys(sorted, h * width, width, kBlock, token, keys.data());
        packValues(sorted, d + h * width, width, kBlock, token, values.data());
        // Broken: the permuted block is not attended.
        if (!broken) attention.block(keys.data(), values.data(), kBlock, kBlock);
        attention.finish(result.data());
        for (int64_t t = 0; t < real; ++t) {
          float* to = out.tile(token(t) / lanes) + h * width * lanes + token(t) % lanes;
          for (int64_t c = 0; c < width; ++c) to[c * lanes] = result.data()[c * kBlock + t];
        }
      }
    });
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix qkv = qkv_.reference(x);
    const int64_t d = size.hidden;
    Matrix pooled(blocks_, d), out(x.rows, d);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t c = 0; c < d; ++c) pooled.at(t / kBlock, c) += x.at(t, c);
    const Matrix p = plainPermutation(pooled);
    Matrix sorted(blocks_ * kBlock, 2 * d);
    for (int64_t i = 0; i < blocks_; ++i)
      for (int64_t t = 0; t < x.rows; ++t)
        addScaled(sorted.row(i * kBlock + t % kBlock), p.at(i, t / kBlock), qkv.row(t) + d, 2 * d);
    parallelFor(blocks_, threads, [&](int64_t b) {
      const int64_t from = b * kBlock, real = std::min(kBlock, x.rows - from);
      Matrix q(real, d), kv(real + kBlock, 2 * d), one(real, d);
      for (int64_t t = 0; t < real; ++t)
        for (int64_t c = 0; c < d; ++c) q.at(t, c) = qkv.at(from + t, c);
      for (int64_t t = 0; t < real + kBlock; ++t)
        for (int64_t c = 0; c < 2 * d; ++c)
          kv.at(t, c) = t < real ? qkv.at(from + t, d + c) : sorted.at(from + t - real, c);
      for (int64_t h = 0; h < size.heads; ++h) {
        const int64_t c = h * size.width();
        referenceHead(
            q, c, kv, c, kv, d + c, size.width(), 1.0 / std::sqrt(static_cast<double>(size.width())),
            [](int64_t, int64_t) { return true; }, &one, c);
      }
      for (int64_t t = 0; t < real; ++t)
        for (int64_t c = 0; c < d; ++c) out.at(from + t, c) = one.at(t, c);
    });
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters() + first_.parameters() + second_.parameters(); }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden),
                 b = static_cast<double>(blocks_);
    return 6 * l * d * d + 2 * b * d * (d + b) + 2 * b * b * 2 * d * kBlock + 4 * l * 2 * kBlock * d;
  }

 private:
  // The reference's: rows and columns of exp(scores / temperature) divided by their sums in turn. Shares nothing with
  // `permutation`.
  Matrix plainPermutation(const Matrix& pooled) const {
    Matrix hidden = first_.reference(pooled);
    for (double& v : hidden.data) v = v > 0 ? v : 0;
    Matrix p = second_.reference(hidden);
    const double most =
        *std::max_element(p.data.begin(), p.data.end());  // a common factor, which the first division takes away
    for (double& v : p.data) v = std::exp((v - most) / kTemperature);
    for (int64_t round = 0; round < kIterations; ++round) {
      for (int64_t i = 0; i < blocks_; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < blocks_; ++j) sum += p.at(i, j);
        for (int64_t j = 0; j < blocks_; ++j) p.at(i, j) /= sum;
      }
      for (int64_t j = 0; j < blocks_; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < blocks_; ++i) sum += p.at(i, j);
        for (int64_t i = 0; i < blocks_; ++i) p.at(i, j) /= sum;
      }
    }
    return p;
  }
  // A few hundred numbers: in double.
  Matrix permutation(const Matrix& pooled) const {
    Matrix hidden = first_.reference(pooled);
    for (double& v : hidden.data) v = std::max(0.0, v);
    Matrix r = second_.reference(hidden);
    for (double& v : r.data) v /= kTemperature;
    for (int64_t iteration = 0; iteration < kIterations; ++iteration)
      for (const bool byRow : {true, false})
        for (int64_t i = 0; i < blocks_; ++i) {
          double top = -1e300, sum = 0;
          for (int64_t j = 0; j < blocks_; ++j) top = std::max(top, byRow ? r.at(i, j) : r.at(j, i));
          for (int64_t j = 0; j < blocks_; ++j) sum += std::exp((byRow ? r.at(i, j) : r.at(j, i)) - top);
          for (int64_t j = 0; j < blocks_; ++j) (byRow ? r.at(i, j) : r.at(j, i)) -= top + std::log(sum);
        }
    for (double& v : r.data) v = std::exp(v);
    return r;
  }
  int64_t blocks_;
  Linear qkv_, first_, second_;
};

}  // namespace

std::unique_ptr<Attention> makeReformer(const Size& s, std::mt19937& r) { return std::make_unique<Reformer>(s, r); }
std::unique_ptr<Attention> makeSinkhorn(const Size& s, std::mt19937& r) { return std::make_unique<Sinkhorn>(s, r); }

}  // namespace hpformer::peers
