// The processor's floating-point mode: rounding to nearest, denormal numbers kept. A caller may have set another one
// (audio code and some numeric libraries flush denormals, or round otherwise), and a thread begins in the mode of the
// thread that starts it.
#pragma once
#include <cstdint>
#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace hpformer {

#if defined(__SSE2__) || defined(_M_X64)
inline constexpr uint64_t kDefaultFloatMode = 0x1f80;  // every exception masked, none raised
inline uint64_t floatMode() { return _mm_getcsr(); }
inline void setFloatMode(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
inline constexpr uint64_t kDefaultFloatMode = 0;
inline uint64_t floatMode() {
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void setFloatMode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
inline constexpr uint64_t kDefaultFloatMode = 0;
inline uint64_t floatMode() { return kDefaultFloatMode; }
inline void setFloatMode(uint64_t) {}
#endif

// While it lives, the calling thread computes in the default mode; then the caller's mode is back, raised exceptions
// included.
class DefaultFloatMode {
 public:
  DefaultFloatMode() : before_(floatMode()) { setFloatMode(kDefaultFloatMode); }
  ~DefaultFloatMode() { setFloatMode(before_); }
  DefaultFloatMode(const DefaultFloatMode&) = delete;
  DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;

 private:
  const uint64_t before_;
};

}  // namespace hpformer
