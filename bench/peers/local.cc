// Attentions over fixed sparse patterns: Longformer and the Sparse Transformer.
#include <algorithm>
#include <cmath>

#include "attention.h"

namespace hpformer::peers {
namespace {

constexpr int64_t kBlock = 96;

// Longformer (arXiv 2004.05150): a sliding window of 512 (256 to each side), and global attention of the first token,
// both ways, its own row with separate query, key and value projections (section 3.1 of the paper).
class Longformer : public Attention {
 public:
  static constexpr int64_t kReach = 256;
  Longformer(const Size& s, std::mt19937& random)
      : Attention(s), qkv_(3 * s.hidden, s.hidden, true, random), global_(3 * s.hidden, s.hidden, true, random) {}
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    const int64_t width = size.width(), lanes = x.lanes, panel = kernels().panel;
    Tiles qkv(3 * size.hidden, x.tokens, lanes);
    qkv_.all(x, qkv, threads);
    std::vector<PackedHeadKeys> heads;
    heads.reserve(static_cast<std::size_t>(size.heads));
    for (int64_t h = 0; h < size.heads; ++h)
      heads.emplace_back(qkv, size.hidden + h * width, qkv, 2 * size.hidden + h * width, width);
    parallelFor(x.count, threads, [&](int64_t i) {
      TileAttention attention(width, lanes, kBlock);
      const int64_t first = i * lanes, last = std::min(x.tokens, first + lanes) - 1;
      const int64_t from = std::max<int64_t>(0, first - kReach) / panel * panel;
      const int64_t to = std::min(x.tokens, last + kReach + 1);
      for (int64_t h = 0; h < size.heads; ++h) {
        const PackedHeadKeys& head = heads[static_cast<std::size_t>(h)];
        attention.begin(qkv.tile(i) + h * width * lanes, scale());
        // The global key, where the window does not see it.
        attention.block(head.keys.data(), head.values.data(), x.tokens, 1, nullptr, [&](float* s) {
          for (int64_t t = 0; t < lanes; ++t)
            if (first + t <= kReach) s[t] = TileAttention::kMasked;
        });
        for (int64_t j = from; j < to; j += kBlock) {
          const int64_t count = std::min(kBlock, to - j);
          const bool whole = j >= last - kReach && j + count - 1 <= first + kReach;
          attention.block(
              head.keys.data() + j * width, head.values.data() + j * panel, x.tokens, count, nullptr,
              whole ? std::function<void(float*)>() : [&](float* s) {
                for (int64_t k = 0; k < count; ++k)
                  for (int64_t t = 0; t < lanes; ++t)
                    if (std::abs(j + k - first - t) > kReach) s[k * lanes + t] = TileAttention::kMasked;
              });
        }
        attention.finish(out.tile(i) + h * width * lanes);
      }
    });
    globalRow(x, out, threads);
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix qkv = qkv_.reference(x), global = global_.reference(x);
    Matrix out(x.rows, size.hidden), first(1, size.hidden),
        row(1, size.hidden);  // only the first token's row is global
    std::copy(global.row(0), global.row(0) + size.hidden, first.row(0));
    const double factor = 1.0 / std::sqrt(static_cast<double>(size.width()));
    parallelFor(size.heads, threads, [&](int64_t h) {
      const int64_t c = h * size.width();
      referenceHead(
          qkv, c, qkv, size.hidden + c, qkv, 2 * size.hidden + c, size.width(), factor,
          [](int64_t i, int64_t j) { return std::abs(i - j) <= kReach || j == 0; }, &out, c);
      referenceHead(
          first, c, global, size.hidden + c, global, 2 * size.hidden + c, size.width(), factor,
          [](int64_t, int64_t) { return true; }, &row, c);
    });
    for (int64_t c = 0; c < size.hidden; ++c) out.at(0, c) = row.at(0, c);
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters() + global_.parameters(); }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden);
    double pairs = 0;
    for (int64_t i = 0; i < size.steps; ++i)
      pairs += static_cast<double>(std::min(size.steps - 1, i + kReach) - std::max<int64_t>(0, i - kReach) + 1 +
                                   (i > kReach));
    return 6 * l * d * d + 4 * pairs * d + 4 * l * d * d + 2 * d * d + 4 * l * d;
  }

 private:
  // Row 0 attends everywhere through the global projections.
  void globalRow(const Tiles& x, Tiles& out, int threads) const {
    const int64_t width = size.width(), lanes = x.lanes, panel = kernels().panel;
    Tiles qkv(3 * size.hidden, x.tokens, lanes);
    (broken ? qkv_ : global_).all(x, qkv, threads);  // broken: without projections of its own
    parallelFor(size.heads, threads, [&](int64_t h) {
      const PackedHeadKeys head(qkv, size.hidden + h * width, qkv, 2 * size.hidden + h * width, width);
      constexpr int64_t kOne = 16;  // one query in a narrow tile
      TileAttention attention(width, kOne, kBlock);
      Floats q(width * kOne), result(width * kOne);
      std::fill(q.data(), q.data() + q.size(), 0.0f);
      for (int64_t c = 0; c < width; ++c) q.data()[c * kOne] = qkv.tile(0)[(h * width + c) * lanes];
      attention.begin(q.data(), scale());
      for (int64_t j = 0; j < x.tokens; j += kBlock)
        attention.block(head.keys.data() + j * width, head.values.data() + j * panel, x.tokens,
                        std::min(kBlock, x.tokens - j));
      attention.finish(result.data());
      for (int64_t c = 0; c < width; ++c) out.tile(0)[(h * width + c) * lanes] = result.data()[c * kOne];
    });
  }
  Linear qkv_, global_;
};

// Sparse Transformer (arXiv 1904.10509), strided pattern with stride l = ceil(sqrt(L)), made two-sided for an encoder:
// the first half of the heads sees the tokens at most l away, the second half those at multiples of l from itself.
class Sparse : public Attention {
 public:
  Sparse(const Size& s, std::mt19937& random)
      : Attention(s),
        qkv_(3 * s.hidden, s.hidden, true, random),
        stride_(static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(s.steps))))) {}
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    const int64_t width = size.width(), lanes = x.lanes, panel = kernels().panel, half = size.heads / 2;
    Tiles qkv(3 * size.hidden, x.tokens, lanes);
    qkv_.all(x, qkv, threads);
    std::vector<PackedHeadKeys> heads;
    for (int64_t h = 0; h < half; ++h)
      heads.emplace_back(qkv, size.hidden + h * width, qkv, 2 * size.hidden + h * width, width);
    const int64_t reach = broken ? stride_ - 1 : stride_;  // broken: the local heads see one token less to each side
    parallelFor(x.count, threads, [&](int64_t i) {
      TileAttention attention(width, lanes, kBlock);
      const int64_t first = i * lanes, last = std::min(x.tokens, first + lanes) - 1;
      const int64_t from = std::max<int64_t>(0, first - stride_) / panel * panel;
      const int64_t to = std::min(x.tokens, last + stride_ + 1);
      for (int64_t h = 0; h < half; ++h) {
        const PackedHeadKeys& head = heads[static_cast<std::size_t>(h)];
        attention.begin(qkv.tile(i) + h * width * lanes, scale());
        for (int64_t j = from; j < to; j += kBlock) {
          const int64_t count = std::min(kBlock, to - j);
          attention.block(head.keys.data() + j * width, head.values.data() + j * panel, x.tokens, count, nullptr,
                          [&](float* s) {
                            for (int64_t k = 0; k < count; ++k)
                              for (int64_t t = 0; t < lanes; ++t)
                                if (std::abs(j + k - first - t) > reach) s[k * lanes + t] = TileAttention::kMasked;
                          });
        }
        attention.finish(out.tile(i) + h * width * lanes);
      }
    });
    // Tokens r, r + l, r + 2l … form a class that attends within itself.
    parallelFor(stride_, threads, [&](int64_t r) {
      const int64_t count = r < x.tokens ? (x.tokens - r + stride_ - 1) / stride_ : 0;
      if (count == 0) return;
      const auto token = [&](int64_t j) { return r + j * stride_; };
      const int64_t narrow = std::min<int64_t>(lanes, (count + 15) / 16 * 16);
      TileAttention attention(width, narrow, kBlock);
      Floats keys(panelFloats(count, width)), values(panelFloats(width, count)), q(width * narrow),
          result(width * narrow);
      for (int64_t h = half; h < size.heads; ++h) {
        packKeys(qkv, size.hidden + h * width, width, count, token, keys.data());
        packValues(qkv, 2 * size.hidden + h * width, width, count, token, values.data());
        for (int64_t first = 0; first < count; first += narrow) {
          const int64_t real = std::min(narrow, count - first);
          for (int64_t c = 0; c < width; ++c)
            for (int64_t t = 0; t < narrow; ++t)
              q.data()[c * narrow + t] = t < real ? qkv.at(h * width + c, token(first + t)) : 0.0f;
          attention.begin(q.data(), scale());
          for (int64_t j = 0; j < count; j += kBlock)
            attention.block(keys.data() + j * width, values.data() + j * panel, count, std::min(kBlock, count - j));
          attention.finish(result.data());
          for (int64_t c = 0; c < width; ++c)
            for (int64_t t = 0; t < real; ++t) out.at(h * width + c, token(first + t)) = result.data()[c * narrow + t];
        }
      }
    });
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix qkv = qkv_.reference(x);
    Matrix out(x.rows, size.hidden);
    const int64_t l = stride_;
    parallelFor(size.heads, threads, [&](int64_t h) {
      const int64_t c = h * size.width();
      const bool local = h < size.heads / 2;
      referenceHead(
          qkv, c, qkv, size.hidden + c, qkv, 2 * size.hidden + c, size.width(),
          1.0 / std::sqrt(static_cast<double>(size.width())),
          [&](int64_t i, int64_t j) { return local ? std::abs(i - j) <= l : (i - j) % l == 0; }, &out, c);
    });
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters(); }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden);
    double pairs = 0;
    for (int64_t i = 0; i < size.steps; ++i) {
      pairs += static_cast<double>(std::min(size.steps - 1, i + stride_) - std::max<int64_t>(0, i - stride_) + 1);
      pairs += static_cast<double>((size.steps - 1 - i % stride_) / stride_ + 1);
    }
    return 6 * l * d * d + 4 * pairs * d / 2;
  }

 private:
  Linear qkv_;
  int64_t stride_;
};

}  // namespace

std::unique_ptr<Attention> makeLongformer(const Size& s, std::mt19937& r) { return std::make_unique<Longformer>(s, r); }
std::unique_ptr<Attention> makeSparse(const Size& s, std::mt19937& r) { return std::make_unique<Sparse>(s, r); }

}  // namespace hpformer::peers
