// Which ISA level runs: asks the CPU and the operating system. Compiled without instruction-set flags, so that the
// question itself cannot fault on an old machine.
#include "detect.h"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && !defined(_MSC_VER)
#include <cpuid.h>
#endif

namespace hpformer {

#define HPFORMER_DECLARE(level) \
  namespace level {             \
  extern const Kernels table;   \
  }
#ifdef HPFORMER_HAVE_baseline
HPFORMER_DECLARE(baseline)
#endif
#ifdef HPFORMER_HAVE_avx2
HPFORMER_DECLARE(avx2)
#endif
#ifdef HPFORMER_HAVE_avx512
HPFORMER_DECLARE(avx512)
#endif
#ifdef HPFORMER_HAVE_neon
HPFORMER_DECLARE(neon)
#endif

namespace {

#if defined(HPFORMER_HAVE_avx2) || defined(HPFORMER_HAVE_avx512)
struct Features {
  bool avx2 = false, avx512 = false;
};

Features detect() {
  Features f;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
  const bool osxsave = c & (1u << 27), avx = c & (1u << 28), fma = c & (1u << 12);
  if (!osxsave || !avx) return f;
  unsigned low = 0, high = 0;  // the registers that the operating system saves
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & 0x6) != 0x6) return f;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  f.avx2 = fma && (b & (1u << 5));
  const unsigned wide = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
  f.avx512 = f.avx2 && (b & wide) == wide && (low & 0xe0) == 0xe0;
  return f;
}
#endif

}  // namespace

std::vector<const Kernels*> availableKernels() {
  std::vector<const Kernels*> levels;
#ifdef HPFORMER_HAVE_neon
  levels.push_back(&neon::table);
#endif
#ifdef HPFORMER_HAVE_baseline
  levels.push_back(&baseline::table);
#endif
#if defined(HPFORMER_HAVE_avx2) || defined(HPFORMER_HAVE_avx512)
  const Features f = detect();
#ifdef HPFORMER_HAVE_avx2
  if (f.avx2) levels.push_back(&avx2::table);
#endif
#ifdef HPFORMER_HAVE_avx512
  if (f.avx512) levels.push_back(&avx512::table);
#endif
#endif
  return levels;
}

const Kernels& kernels() {
  static const Kernels* const chosen = [] {
    const std::vector<const Kernels*> levels = availableKernels();
    if (const char* wanted = std::getenv("HPFORMER_ISA"))
      for (const Kernels* level : levels)
        if (std::strcmp(level->isa, wanted) == 0) return level;
    return levels.back();
  }();
  return *chosen;
}

}  // namespace hpformer
