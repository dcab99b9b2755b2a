// The few lines of a test framework that the native tests need: every failed check is printed, the program exits
// with 1.
#pragma once
#include <cmath>
#include <cstdio>

namespace hpformer::test {

inline int failures = 0;

inline void check(bool good, const char* what, const char* file, int line) {
  if (good) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
}

inline void checkNear(double got, double expected, double bound, const char* what, const char* file, int line) {
  if (std::abs(got - expected) <= bound) return;  // NaN fails
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s: expected %.17g, got %.17g\n", file, line, what, expected, got);
}

inline int result() {
  if (failures > 0) std::fprintf(stderr, "%d checks failed\n", failures);
  return failures > 0 ? 1 : 0;
}

}  // namespace hpformer::test

#define CHECK(condition) ::hpformer::test::check((condition), #condition, __FILE__, __LINE__)
#define CHECK_NEAR(got, expected, bound) \
  ::hpformer::test::checkNear((got), (expected), (bound), #got " = " #expected, __FILE__, __LINE__)
