// From named arrays, as a checkpoint holds them, to the model's Weights.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "binding/contract/spec.h"
#include "binding/contract/status.h"
#include "binding/contract/weights.h"

namespace hpformer {

// One tensor in the precision that it came in; exactly one of the two holds values.
struct NamedArray {
  std::vector<float> narrow;
  std::vector<double> wide;
  int64_t size() const { return static_cast<int64_t>(narrow.empty() ? wide.size() : narrow.size()); }
};

using NamedArrays = std::map<std::string, NamedArray>;

// Takes every parameter that `spec` asks for under its canonical name. Fails with `checkpoint` for a missing, surplus,
// wrongly sized or non-finite one, and with `config` when sizes overflow.
Status takeWeights(const Spec& spec, const NamedArrays& arrays, Weights* out);
// The same, giving back the memory of each array as soon as it was taken.
Status takeWeights(const Spec& spec, NamedArrays&& arrays, Weights* out);

}  // namespace hpformer
