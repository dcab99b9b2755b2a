// Scalar functions of the model in double precision: what every backend's vectorised forms are measured against.
#pragma once
#include <cmath>
#include <cstdint>

#include "spec.h"

namespace hpformer {

inline double sigmoid(double x) {
  // Either branch raises e to a non-positive power, so neither overflows; NaN takes the second and stays NaN.
  if (x >= 0) return 1.0 / (1.0 + std::exp(-x));
  const double e = std::exp(x);
  return e / (1.0 + e);
}

inline double relu(double x) { return x < 0 ? 0.0 : x; }  // NaN stays NaN

inline double silu(double x) { return x * sigmoid(x); }

// x times the normal distribution function; erfc keeps the negative tail exact where 1 + erf would cancel.
inline double gelu(double x) { return 0.5 * x * std::erfc(-x * 0.70710678118654752440); }

inline double geluTanh(double x) {
  constexpr double kSqrtTwoOverPi = 0.79788456080286535588;
  return 0.5 * x * (1.0 + std::tanh(kSqrtTwoOverPi * (x + 0.044715 * x * x * x)));
}

inline double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::relu: return relu(x);
    case Activation::silu: return silu(x);
    case Activation::gelu: return gelu(x);
    case Activation::geluTanh: return geluTanh(x);
    case Activation::linear: break;
  }
  return x;
}

}  // namespace hpformer
