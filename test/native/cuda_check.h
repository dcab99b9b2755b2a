// What every CUDA test needs: counted failures, the skip where there is no driver, loading, equal bits.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "binding/contract/weights.h"
#include "cuda/backend.h"

namespace hpformer::testing {

inline int gFailures = 0;
inline const CancelFlag kNever{false};

inline void expect(bool ok, const std::string& what) {
  if (ok) return;
  ++gFailures;
  std::printf("FAILED: %s\n", what.c_str());
}

// 77 (CTest's "skipped") where there is no driver library, else 0.
inline int skipped() {
  std::string reason;
  if (!cudaDevices(&reason).empty()) return 0;
  std::printf("skipped: %s\n", reason.c_str());
  return 77;
}

inline int result() {
  std::printf("%d failures\n", gFailures);
  return gFailures == 0 ? 0 : 1;
}

// `key` empty: weights shared with nobody. `device` < 0: all devices.
inline Status load(const Spec& spec, std::shared_ptr<const Weights> weights, Precision precision,
                   std::unique_ptr<Backend>* out, const std::string& key = "", int device = 0) {
  CudaOptions options;
  options.device = device;
  options.precision = precision;
  options.key = key;
  return createCudaBackend(spec, std::move(weights), options, out);
}

// The part of its bound that an error in float32 may use. Where the stand-in driver cuts sums like tensor cores do,
// half of it: real ones sum in an order of their own besides. In bfloat16 the rounding of operands is what the bound is
// for.
inline double allowed() {
  const char* truncates = std::getenv("GPUSIM_MMA_TRUNCATE");
  return truncates && *truncates == '1' ? 0.5 : 1;
}

inline bool sameBits(const float* a, const float* b, size_t count) {
  return count == 0 || std::memcmp(a, b, count * sizeof(float)) == 0;
}
inline bool sameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && sameBits(a.data(), b.data(), a.size());
}

}  // namespace hpformer::testing
