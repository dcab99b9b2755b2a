// Attentions that are a softmax over a fixed set of keys: the full Transformer, Linformer, Synthesizer.
#include <algorithm>
#include <cmath>

#include "attention.h"

namespace hpformer::peers {

float Attention::scale() const { return 1.0f / std::sqrt(static_cast<float>(size.width())); }

void referenceHead(const Matrix& q, int64_t qChannel, const Matrix& k, int64_t kChannel, const Matrix& v,
                   int64_t vChannel, int64_t width, double scale, const std::function<bool(int64_t, int64_t)>& allowed,
                   Matrix* out, int64_t outChannel) {
  const Matrix keys = k.slice(kChannel, width), values = v.slice(vChannel, width);  // side by side: they stay in cache
  std::vector<double> score(static_cast<std::size_t>(k.rows));
  std::vector<int64_t> seen(static_cast<std::size_t>(k.rows));
  for (int64_t i = 0; i < q.rows; ++i) {
    double top = -1e300, sum = 0;
    std::size_t count = 0;
    for (int64_t j = 0; j < k.rows; ++j) {
      if (!allowed(i, j)) continue;
      top = std::max(top, score[count] = dot(q.row(i) + qChannel, keys.row(j), width) * scale);
      seen[count++] = j;
    }
    double* to = out->row(i) + outChannel;
    std::fill(to, to + width, 0.0);
    for (std::size_t n = 0; n < count; ++n) {
      const double p = std::exp(score[n] - top);
      sum += p;
      addScaled(to, p, values.row(seen[n]), width);
    }
    for (int64_t c = 0; c < width; ++c) to[c] /= sum;
  }
}

namespace {

constexpr int64_t kBlock = 128;  // keys at a time: their scores for one tile stay in L1
const auto everything = [](int64_t, int64_t) { return true; };

// All tiles of `q` (channels head * width, all tokens) against packed keys.
void attendAll(const Tiles& q, const std::vector<PackedHeadKeys>& heads, float scale, int threads, Tiles& out,
               const std::vector<Floats>* keyBias = nullptr) {
  const int64_t width = heads[0].width, panel = kernels().panel;
  parallelFor(q.count, threads, [&](int64_t i) {
    TileAttention attention(width, q.lanes, kBlock);
    for (std::size_t h = 0; h < heads.size(); ++h) {
      const PackedHeadKeys& head = heads[h];
      const int64_t channel = static_cast<int64_t>(h) * width;
      attention.begin(q.tile(i) + channel * q.lanes, scale);
      for (int64_t j = 0; j < head.tokens; j += kBlock)
        attention.block(head.keys.data() + j * width, head.values.data() + j * panel, head.tokens,
                        std::min(kBlock, head.tokens - j), keyBias ? (*keyBias)[h].data() + j : nullptr);
      attention.finish(out.tile(i) + channel * out.lanes);
    }
  });
}

std::vector<PackedHeadKeys> packHeads(const Tiles& k, int64_t keyChannel, const Tiles& v, int64_t valueChannel,
                                      const Size& size, int threads) {
  std::vector<PackedHeadKeys> heads;
  heads.reserve(static_cast<std::size_t>(size.heads));
  for (int64_t h = 0; h < size.heads; ++h) {
    const int64_t c = h * size.width();
    heads.emplace_back(k, keyChannel + c, v, valueChannel + c, size.width());
  }
  static_cast<void>(threads);
  return heads;
}

// Vaswani et al. 2017: softmax(q k^T / sqrt(d_h)) v, tiled with an online softmax so that no L x L matrix exists.
class Transformer : public Attention {
 public:
  Transformer(const Size& s, std::mt19937& random) : Attention(s), qkv_(3 * s.hidden, s.hidden, true, random) {}
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    Tiles qkv(3 * size.hidden, x.tokens, x.lanes);
    qkv_.all(x, qkv, threads);
    // Broken: divided by sqrt(hidden), not by the root of a head's width.
    const float factor = broken ? 1.0f / std::sqrt(static_cast<float>(size.hidden)) : scale();
    attendAll(qkv, packHeads(qkv, size.hidden, qkv, 2 * size.hidden, size, threads), factor, threads, out);
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix qkv = qkv_.reference(x);
    Matrix out(x.rows, size.hidden);
    parallelFor(size.heads, threads, [&](int64_t h) {
      const int64_t c = h * size.width();
      referenceHead(qkv, c, qkv, size.hidden + c, qkv, 2 * size.hidden + c, size.width(),
                    1.0 / std::sqrt(static_cast<double>(size.width())), everything, &out, c);
    });
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters(); }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden);
    return 6 * l * d * d + 4 * l * l * d;
  }

 private:
  Linear qkv_;
};

// Linformer (arXiv 2006.04768): keys and values projected along the sequence to k = 256 rows. Of the paper's sharing
// options the key-value one: one E per layer for keys, values and all heads.
class Linformer : public Attention {
 public:
  static constexpr int64_t kRows = 256;
  Linformer(const Size& s, std::mt19937& random)
      : Attention(s),
        qkv_(3 * s.hidden, s.hidden, true, random),
        lanes_(kernels().tile),
        project_(s.steps, kRows, lanes_),
        values_(gaussian(kRows * s.steps, 1.0f / std::sqrt(static_cast<float>(s.steps)), random)) {
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t t = 0; t < s.steps; ++t) project_.at(t, r) = values_[static_cast<std::size_t>(r * s.steps + t)];
  }
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    Tiles qkv(3 * size.hidden, x.tokens, x.lanes);
    qkv_.all(x, qkv, threads);
    // [K; V]^T E^T: rows are channels, the sum runs over tokens.
    const int64_t channels = 2 * size.hidden;
    Floats panels(panelFloats(channels, x.tokens));
    packValues(
        qkv, size.hidden, channels, x.tokens, [](int64_t t) { return t; }, panels.data());
    Tiles small(channels, kRows, lanes_);
    constexpr int64_t kRowBlock = 32;
    const int64_t parts = (channels + kRowBlock - 1) / kRowBlock;
    parallelFor(small.count * parts, threads, [&](int64_t i) {
      const int64_t tile = i / parts, row = i % parts * kRowBlock;
      gemm(panels.data() + row * x.tokens, std::min(kRowBlock, channels - row), x.tokens, project_.tile(tile), lanes_,
           small.tile(tile) + row * lanes_, lanes_, lanes_);
    });
    if (broken)  // the last of the 256 projected rows is missing
      for (int64_t c = 0; c < channels; ++c) small.at(c, kRows - 1) = 0.0f;
    attendAll(qkv, packHeads(small, 0, small, size.hidden, size, threads), scale(), threads, out);
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix qkv = qkv_.reference(x);
    Matrix small(kRows, 2 * size.hidden);
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t t = 0; t < x.rows; ++t)
        addScaled(small.row(r), values_[static_cast<std::size_t>(r * x.rows + t)], qkv.row(t) + size.hidden,
                  2 * size.hidden);
    Matrix out(x.rows, size.hidden);
    parallelFor(size.heads, threads, [&](int64_t h) {
      const int64_t c = h * size.width();
      referenceHead(qkv, c, small, c, small, size.hidden + c, size.width(),
                    1.0 / std::sqrt(static_cast<double>(size.width())), everything, &out, c);
    });
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters() + kRows * size.steps; }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden), k = kRows;
    return 6 * l * d * d + 4 * k * l * d + 4 * k * l * d;
  }

 private:
  Linear qkv_;
  int64_t lanes_;
  Tiles project_;
  std::vector<float> values_;
};

// Synthesizer (arXiv 2005.00743). Dense: the scores of a token over all L positions are a two-layer function of that
// token alone, W2 relu(W1 x + b1) + b2 per head, hidden width d_h. Random: learned scores that read no input at all, in
// the paper's factorised form R1 R2^T; rank d_h (the paper's k = 8 rounded up to the head width, so that both variants
// cost the same).
class Synthesizer : public Attention {
 public:
  Synthesizer(const Size& s, std::mt19937& random, bool dense) : Attention(s), dense_(dense) {
    value_ = Linear(s.hidden, s.hidden, true, random);
    if (dense)
      first_ = Linear(s.hidden, s.hidden, true, random);
    else
      query_ = gaussian(s.heads * s.width() * s.steps, 1.0f, random);
    for (int64_t h = 0; h < s.heads; ++h) {
      second_.push_back(gaussian(s.steps * s.width(), 1.0f / std::sqrt(static_cast<float>(s.width())), random));
      packed_.push_back(packRows(second_.back().data(), s.steps, s.width()));
      bias_.emplace_back((s.steps + 15) / 16 * 16 + 16);
      std::fill(bias_.back().data(), bias_.back().data() + bias_.back().size(), 0.0f);
      if (dense) {
        const std::vector<float> b = gaussian(s.steps, 0.1f, random);
        std::copy(b.begin(), b.end(), bias_.back().data());
      }
    }
  }
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    Tiles v(size.hidden, x.tokens, x.lanes), q(size.hidden, x.tokens, x.lanes);
    value_.all(x, v, threads);
    if (dense_)
      first_.all(x, q, threads, 1);
    else
      parallelFor(x.count, threads, [&](int64_t i) {
        for (int64_t c = 0; c < size.hidden; ++c)
          for (int64_t lane = 0; lane < x.lanes && i * x.lanes + lane < x.tokens; ++lane)
            q.tile(i)[c * x.lanes + lane] = queryAt(c, i * x.lanes + lane);
      });
    if (broken)  // rank d_h - 1: one number of every head's scores is missing
      for (int64_t i = 0; i < q.count; ++i)
        for (int64_t h = 0; h < size.heads; ++h) std::fill_n(q.tile(i) + h * size.width() * q.lanes, q.lanes, 0.0f);
    const int64_t width = size.width(), panel = kernels().panel;
    std::vector<Floats> values;
    for (int64_t h = 0; h < size.heads; ++h) {
      values.emplace_back(panelFloats(width, x.tokens));
      packValues(
          v, h * width, width, x.tokens, [](int64_t t) { return t; }, values.back().data());
    }
    parallelFor(x.count, threads, [&](int64_t i) {
      TileAttention attention(width, x.lanes, kBlock);
      for (int64_t h = 0; h < size.heads; ++h) {
        const auto at = static_cast<std::size_t>(h);
        attention.begin(q.tile(i) + h * width * x.lanes, 1.0f);
        for (int64_t j = 0; j < x.tokens; j += kBlock)
          attention.block(packed_[at].data() + j * width, values[at].data() + j * panel, x.tokens,
                          std::min(kBlock, x.tokens - j), bias_[at].data() + j);
        attention.finish(out.tile(i) + h * width * x.lanes);
      }
    });
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix v = value_.reference(x);
    Matrix q(x.rows, size.hidden), out(x.rows, size.hidden);
    if (dense_) q = first_.reference(x);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t c = 0; c < size.hidden; ++c) q.at(t, c) = dense_ ? std::max(0.0, q.at(t, c)) : queryAt(c, t);
    parallelFor(size.heads, threads, [&](int64_t h) {
      const auto at = static_cast<std::size_t>(h);
      const int64_t width = size.width();
      const Matrix values = v.slice(h * width, width);
      Matrix scores(1, x.rows);
      for (int64_t i = 0; i < x.rows; ++i) {
        for (int64_t j = 0; j < x.rows; ++j)
          scores.at(0, j) = bias_[at].data()[j] + dot(q.row(i) + h * width, second_[at].data() + j * width, width);
        const Matrix p = softmaxRows(scores);
        for (int64_t j = 0; j < x.rows; ++j) addScaled(out.row(i) + h * width, p.at(0, j), values.row(j), width);
      }
    });
    return out;
  }
  int64_t parameters() const override {
    const int64_t scores = size.heads * size.steps * size.width();
    return value_.parameters() + (dense_ ? first_.parameters() + scores + size.heads * size.steps : 2 * scores);
  }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden);
    return (dense_ ? 4 : 2) * l * d * d + 4 * l * l * d;
  }

 private:
  float queryAt(int64_t channel, int64_t token) const {
    return query_[static_cast<std::size_t>(channel * size.steps + token)];
  }
  bool dense_;
  Linear value_, first_;
  std::vector<float> query_;                // random: R2, [channel][step]
  std::vector<std::vector<float>> second_;  // dense: W2, random: R1, per head [steps][width]
  std::vector<Floats> packed_, bias_;
};

}  // namespace

std::unique_ptr<Attention> makeTransformer(const Size& s, std::mt19937& r) {
  return std::make_unique<Transformer>(s, r);
}
std::unique_ptr<Attention> makeLinformer(const Size& s, std::mt19937& r) { return std::make_unique<Linformer>(s, r); }
std::unique_ptr<Attention> makeSynthesizer(const Size& s, std::mt19937& r, bool dense) {
  return std::make_unique<Synthesizer>(s, r, dense);
}

}  // namespace hpformer::peers
