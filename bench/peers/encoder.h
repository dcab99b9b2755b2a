// A whole encoder around one attention, the same for all systems: linear embedding of F features plus sinusoidal
// positions, `layers` times (attention, output projection, residual, LayerNorm, one-linear feed-forward with relu,
// residual, LayerNorm), mean over the steps.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "attention.h"

namespace hpformer::peers {

struct EncoderSize {
  Size size;
  int64_t features = 76, layers = 4;
};

class System {
 public:
  virtual ~System() = default;
  // input [steps][features] -> pooled [hidden]
  virtual void run(const float* input, float* pooled, int threads) const = 0;
  // Largest difference of any value from a double-precision evaluation of the formulas, in units of the values' root
  // mean square: embedding, every layer and what `run` gives. The largest double where a value is not finite.
  virtual double check(const float* input, int threads) const = 0;
  virtual int64_t parametersPerLayer() const = 0;
  virtual double flops() const = 0;
};

// The twelve rows of the comparison, in the order of the report.
const std::vector<std::string>& systemNames();
// Null for an unknown name.
// `broken`: the fast path departs from the system's own formula in one respect, to show that `check` sees it.
std::unique_ptr<System> makeSystem(const std::string& name, const EncoderSize& size, bool broken = false);
std::unique_ptr<System> makeHpformer(const EncoderSize& size, bool broken);
// In units of the root mean square of `expected`; the largest double where it is not a number.
double worstError(const Matrix& got, const Matrix& expected);
double position(int64_t step, int64_t channel, int64_t hidden);

}  // namespace hpformer::peers
