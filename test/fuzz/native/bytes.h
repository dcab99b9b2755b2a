// Numbers out of a fuzzer's bytes: small ones, the edges of integers, and floating-point values of every kind.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace hpformer::fuzz {

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  uint8_t byte() { return at_ < end_ ? *at_++ : 0; }
  int64_t in(int64_t low, int64_t high) { return low + byte() % (high - low + 1); }
  bool chance() { return (byte() & 1) != 0; }

  // Mostly small, sometimes an edge.
  int64_t size(int64_t most) {
    static const int64_t edges[] = {-1,
                                    0,
                                    0x7fffffff,
                                    int64_t{1} << 31,
                                    int64_t{1} << 32,
                                    (int64_t{1} << 53) - 1,
                                    std::numeric_limits<int64_t>::max(),
                                    std::numeric_limits<int64_t>::min()};
    const uint8_t kind = byte();
    return kind >= 240 ? edges[kind % 8] : kind % (most + 1);
  }
  int32_t id(int64_t below) {
    static const int32_t edges[] = {-1, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min(),
                                    1 << 16};
    const uint8_t kind = byte();
    if (kind >= 250) return edges[kind % 4];
    return static_cast<int32_t>(kind % (below + 1));
  }
  template <typename Real>
  Real real() {
    const uint8_t kind = byte();
    if (kind == 255) return std::numeric_limits<Real>::quiet_NaN();
    if (kind == 254) return std::numeric_limits<Real>::infinity();
    if (kind == 253) return -std::numeric_limits<Real>::max();
    if (kind == 252) return std::numeric_limits<Real>::denorm_min();
    return (Real(kind) - 126) / 32;
  }
  template <typename Real>
  std::vector<Real> reals(int64_t count) {
    std::vector<Real> all(static_cast<size_t>(count));
    for (Real& x : all) x = real<Real>();
    return all;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

}  // namespace hpformer::fuzz
