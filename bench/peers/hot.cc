// Higher-Order Transformer (arXiv 2412.02919): the input is a tensor with axes (rows, columns); attention is the
// Kronecker product of one small attention per axis, whose queries and keys are means over the other axes; heads sum
// the factors' rank.
//   out = (S1 (x) S2) V,  S1 = softmax(mean_columns(Q) mean_columns(K)^T / sqrt(d_h)) over rows, S2 likewise over
//   columns.
// Kernelised: S_i = phi(Q_i) phi(K_i)^T with normalised rows, phi = elu + 1. A plain sequence of L steps is folded row
// by row into ceil(sqrt(L)) columns; cells after its end hold no token: they enter no mean and their value is zero.
#include <algorithm>
#include <cmath>

#include "attention.h"

namespace hpformer::peers {
namespace {

class Hot : public Attention {
 public:
  Hot(const Size& s, std::mt19937& random, bool kernelised)
      : Attention(s),
        columns_(s.columns > 0 ? s.columns : static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(s.steps))))),
        rows_(s.rows > 0 ? s.rows : (s.steps + columns_ - 1) / columns_),
        kernelised_(kernelised),
        qkv_(3 * s.hidden, s.hidden, true, random) {}
  void run(const Tiles& x, Tiles& out, int threads, Choices*) const override {
    const int64_t width = size.width(), lanes = x.lanes, d = size.hidden;
    Tiles qkv(3 * d, x.tokens, lanes);
    qkv_.all(x, qkv, threads);
    parallelFor(size.heads, threads, [&](int64_t h) {
      // Means over each axis for q and k of this head.
      Matrix means[4] = {{rows_, width}, {rows_, width}, {columns_, width}, {columns_, width}};
      for (int64_t t = 0; t < x.tokens; ++t)
        for (int64_t part = 0; part < 2; ++part) {
          const float* from = qkv.tile(t / lanes) + (part * d + h * width) * lanes + t % lanes;
          double* byRow = &means[part].at(t / columns_, 0);
          double* byColumn = &means[2 + part].at(t % columns_, 0);
          for (int64_t c = 0; c < width; ++c) {
            const double v = from[c * lanes];
            byRow[c] += v;
            byColumn[c] += v;
          }
        }
      // Broken: the rows' means are left as sums.
      const std::vector<double> ones(static_cast<std::size_t>(rows_), 1.0);
      const Matrix first = axis(means[0], means[1], broken ? ones : rowCounts(x.tokens)),
                   second = axis(means[2], means[3], columnCounts(x.tokens));
      const std::vector<float> a(first.data.begin(), first.data.end()), b(second.data.begin(), second.data.end());
      const Floats rowPanels = packRows(a.data(), rows_, rows_), columnPanels = packRows(b.data(), columns_, columns_);
      const int64_t stride = (width + 15) / 16 * 16, row = columns_ * stride;
      Floats v(rows_ * row), along((rows_ * columns_ + 8) * stride), result((rows_ + 8) * row);
      std::fill(v.data(), v.data() + v.size(), 0.0f);
      for (int64_t t = 0; t < x.tokens; ++t) {
        const float* from = qkv.tile(t / lanes) + (2 * d + h * width) * lanes + t % lanes;
        for (int64_t c = 0; c < width; ++c) v.data()[t * stride + c] = from[c * lanes];
      }
      for (int64_t r = 0; r < rows_; ++r)
        gemm(columnPanels.data(), columns_, columns_, v.data() + r * row, stride, along.data() + r * row, stride,
             stride);
      gemm(rowPanels.data(), rows_, rows_, along.data(), row, result.data(), row, row);
      for (int64_t t = 0; t < x.tokens; ++t) {
        float* to = out.tile(t / lanes) + h * width * lanes + t % lanes;
        for (int64_t c = 0; c < width; ++c) to[c * lanes] = result.data()[t * stride + c];
      }
    });
  }
  Matrix reference(const Matrix& x, int threads, const Choices&) const override {
    const Matrix qkv = qkv_.reference(x);
    const int64_t width = size.width(), d = size.hidden;
    Matrix out(x.rows, d);
    parallelFor(size.heads, threads, [&](int64_t h) {
      const Matrix v = qkv.slice(2 * d + h * width, width);
      const Matrix first = plainAxis(qkv, h * width, rows_, [&](int64_t t) { return t / columns_; });
      const Matrix second = plainAxis(qkv, h * width, columns_, [&](int64_t t) { return t % columns_; });
      for (int64_t i = 0; i < x.rows; ++i)
        for (int64_t j = 0; j < x.rows; ++j) {
          const double p = first.at(i / columns_, j / columns_) * second.at(i % columns_, j % columns_);
          addScaled(out.row(i) + h * width, p, v.row(j), width);
        }
    });
    return out;
  }
  int64_t parameters() const override { return qkv_.parameters(); }
  double flops() const override {
    const double l = static_cast<double>(size.steps), d = static_cast<double>(size.hidden),
                 n1 = static_cast<double>(rows_), n2 = static_cast<double>(columns_);
    return 6 * l * d * d + 2 * (n1 * n1 + n2 * n2) * d + 2 * n1 * n2 * (n1 + n2) * d;
  }

 private:
  std::vector<double> rowCounts(int64_t tokens) const {
    std::vector<double> n(static_cast<std::size_t>(rows_), 0.0);
    for (int64_t t = 0; t < tokens; ++t) n[static_cast<std::size_t>(t / columns_)] += 1;
    return n;
  }
  std::vector<double> columnCounts(int64_t tokens) const {
    std::vector<double> n(static_cast<std::size_t>(columns_), 0.0);
    for (int64_t t = 0; t < tokens; ++t) n[static_cast<std::size_t>(t % columns_)] += 1;
    return n;
  }
  // The reference's attention of one axis, as the formula stands: place(t) is a token's place on it. Shares nothing
  // with `axis`.
  template <typename Place>
  Matrix plainAxis(const Matrix& qkv, int64_t column, int64_t places, Place place) const {
    const int64_t width = size.width(), d = size.hidden;
    const auto mean = [&](int64_t at, int64_t c) {
      double sum = 0, count = 0;
      for (int64_t t = 0; t < qkv.rows; ++t)
        if (place(t) == at) sum += qkv.at(t, c), count += 1;
      return count > 0 ? sum / count : std::nan("");
    };
    Matrix q(places, width), k(places, width), s(places, places);
    for (int64_t i = 0; i < places; ++i)
      for (int64_t c = 0; c < width; ++c) q.at(i, c) = mean(i, column + c), k.at(i, c) = mean(i, d + column + c);
    for (int64_t i = 0; i < places; ++i) {
      double below = 0;
      for (int64_t j = 0; j < places; ++j) {
        double dot = 0, kernel = 0;
        for (int64_t c = 0; c < width; ++c) {
          const double a = q.at(i, c), b = k.at(j, c);
          dot += a * b;
          kernel += (a > 0 ? a + 1 : std::exp(a)) * (b > 0 ? b + 1 : std::exp(b));
        }
        const double weight = kernelised_ ? kernel : std::exp(dot / std::sqrt(static_cast<double>(width)));
        s.at(i, j) = std::isnan(weight) ? 0.0 : weight;  // a place without tokens
        below += s.at(i, j);
      }
      for (int64_t j = 0; below > 0 && j < places; ++j) s.at(i, j) /= below;
    }
    return s;
  }
  // The attention of one axis; sums become means. N numbers squared: in double, they cost nothing.
  Matrix axis(Matrix q, Matrix k, const std::vector<double>& counts) const {
    const auto phi = [](double v) { return v > 0 ? v + 1 : std::exp(v); };
    for (Matrix* m : {&q, &k})
      for (int64_t i = 0; i < m->rows; ++i)
        for (int64_t c = 0; c < m->columns; ++c) {
          m->at(i, c) /= std::max(1.0, counts[static_cast<std::size_t>(i)]);
          if (kernelised_) m->at(i, c) = phi(m->at(i, c));
        }
    Matrix s(q.rows, q.rows);
    const double factor = kernelised_ ? 1.0 : 1.0 / std::sqrt(static_cast<double>(q.columns));
    for (int64_t i = 0; i < q.rows; ++i)
      for (int64_t j = 0; j < q.rows; ++j) {
        for (int64_t c = 0; c < q.columns; ++c) s.at(i, j) += q.at(i, c) * k.at(j, c) * factor;
        if (counts[static_cast<std::size_t>(j)] == 0) s.at(i, j) = kernelised_ ? 0.0 : -1e300;
      }
    if (!kernelised_) return softmaxRows(s);
    for (int64_t i = 0; i < s.rows; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < s.rows; ++j) sum += s.at(i, j);
      for (int64_t j = 0; j < s.rows; ++j) s.at(i, j) /= sum;
    }
    return s;
  }
  int64_t columns_, rows_;
  bool kernelised_;
  Linear qkv_;
};

}  // namespace

std::unique_ptr<Attention> makeHot(const Size& s, std::mt19937& r, bool kernelised) {
  return std::make_unique<Hot>(s, r, kernelised);
}

std::unique_ptr<Attention> makeAttention(const std::string& name, const Size& size, std::mt19937& random) {
  if (name == "transformer") return makeTransformer(size, random);
  if (name == "linformer") return makeLinformer(size, random);
  if (name == "performer") return makePerformer(size, random);
  if (name == "linear") return makeLinear(size, random);
  if (name == "longformer") return makeLongformer(size, random);
  if (name == "sparse") return makeSparse(size, random);
  if (name == "reformer") return makeReformer(size, random);
  if (name == "sinkhorn") return makeSinkhorn(size, random);
  if (name == "synthesizer") return makeSynthesizer(size, random, true);
  if (name == "synthesizer-random") return makeSynthesizer(size, random, false);
  if (name == "adamra") return makeAdamra(size, random);
  if (name == "hot") return makeHot(size, random, false);
  if (name == "hot-kernel") return makeHot(size, random, true);
  return nullptr;
}

}  // namespace hpformer::peers
