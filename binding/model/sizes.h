// Products of sizes that cannot wrap around.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <limits>

namespace hpformer {

// False when a factor is negative or the product passes 2^53 - 1 (the largest count that JavaScript can name).
inline bool product(std::initializer_list<int64_t> factors, int64_t* out) {
  constexpr int64_t kMost = (int64_t{1} << 53) - 1;
  int64_t count = 1;
  for (const int64_t factor : factors) {
    if (factor < 0) return false;
    if (factor != 0 && count > kMost / factor) return false;
    count *= factor;
  }
  *out = count;
  return true;
}

}  // namespace hpformer
