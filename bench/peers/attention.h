// One attention of the literature: from the layer input x to the concatenated heads, before the output projection.
#pragma once
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tiles.h"

namespace hpformer::peers {

struct Size {
  int64_t steps = 0, hidden = 0, heads = 0;
  int64_t rows = 0, columns = 0;  // hot: axes of the tensor, rows * columns >= steps
  int64_t width() const { return hidden / heads; }
};

// Discrete choices of one call (hash buckets, routes), in the order of its formula. Two candidates equal up to rounding
// may fall either way, and everything after would differ: so the reference follows the choice that was made, after
// judging it (`tied`).
using Choices = std::vector<int32_t>;
inline bool tied(double chosen, double best) { return chosen >= best - 1e-5 * (1 + std::abs(best)); }

class Attention {
 public:
  explicit Attention(const Size& s) : size(s) {}
  virtual ~Attention() = default;
  // x, out: [hidden] channels; out has the lanes of x.
  virtual void run(const Tiles& x, Tiles& out, int threads, Choices* choices = nullptr) const = 0;
  // The formula in plain double loops over x [steps][hidden].
  virtual Matrix reference(const Matrix& x, int threads, const Choices& choices) const = 0;
  virtual int64_t parameters() const = 0;
  // Operations of the matrix products of one call, 2 per multiply-add.
  virtual double flops() const = 0;
  // `run` then departs from the formula in one respect, named where it is read: shows what the check sees.
  bool broken = false;

 protected:
  float scale() const;
  Size size;
};

// Names as in docs/efficiency.md. Null for an unknown name.
std::unique_ptr<Attention> makeAttention(const std::string& name, const Size& size, std::mt19937& random);

std::unique_ptr<Attention> makeTransformer(const Size&, std::mt19937&);
std::unique_ptr<Attention> makeLinformer(const Size&, std::mt19937&);
std::unique_ptr<Attention> makeSynthesizer(const Size&, std::mt19937&, bool dense);
std::unique_ptr<Attention> makeLinear(const Size&, std::mt19937&);
std::unique_ptr<Attention> makePerformer(const Size&, std::mt19937&);
std::unique_ptr<Attention> makeAdamra(const Size&, std::mt19937&);
std::unique_ptr<Attention> makeLongformer(const Size&, std::mt19937&);
std::unique_ptr<Attention> makeSparse(const Size&, std::mt19937&);
std::unique_ptr<Attention> makeReformer(const Size&, std::mt19937&);
std::unique_ptr<Attention> makeSinkhorn(const Size&, std::mt19937&);
std::unique_ptr<Attention> makeHot(const Size&, std::mt19937&, bool kernelised);

// softmax(scale q k^T) v for one head in double; `allowed(i, j)` says which pairs count. For use in parallel over
// heads.
void referenceHead(const Matrix& q, int64_t qChannel, const Matrix& k, int64_t kChannel, const Matrix& v,
                   int64_t vChannel, int64_t width, double scale, const std::function<bool(int64_t, int64_t)>& allowed,
                   Matrix* out, int64_t outChannel);

}  // namespace hpformer::peers
