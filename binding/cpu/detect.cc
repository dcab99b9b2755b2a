// Which ISA level runs: asks the CPU and the operating system. Compiled without instruction-set flags, so that the
// question itself cannot fault on an old machine.
#include "detect.h"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && !defined(_MSC_VER)
#include <cpuid.h>
#endif
#if defined(HPFORMER_HAVE_amx)
#include <sys/syscall.h>
#include <unistd.h>
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
HPFORMER_DECLARE(avx512_vnni)
#endif
#ifdef HPFORMER_HAVE_amx
HPFORMER_DECLARE(amx)
#endif
#ifdef HPFORMER_HAVE_wide
HPFORMER_DECLARE(wide)
HPFORMER_DECLARE(wide_tiles)
#endif
#ifdef HPFORMER_HAVE_neon
HPFORMER_DECLARE(neon)
#endif

namespace {

#if defined(HPFORMER_HAVE_avx2) || defined(HPFORMER_HAVE_avx512)
struct Features {
  bool avx2 = false, avx512 = false, vnni = false, amx = false;
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
  f.vnni = f.avx512 && (c & (1u << 11));
  const bool tiles = (d & (1u << 24)) && (d & (1u << 22));  // AMX-TILE, AMX-BF16
  if (!f.avx512 || !tiles || (low & 0x60000) != 0x60000) return f;
  f.amx = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));  // AVX512-BF16
  return f;
}
#endif

#ifdef HPFORMER_HAVE_amx
// Linux lets a process use tile registers only after it has asked. It may refuse, and older kernels do not know the
// question.
bool tilesPermitted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
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
  if (f.vnni) levels.push_back(&avx512_vnni::table);
#endif
#ifdef HPFORMER_HAVE_amx
  if (f.amx && tilesPermitted()) levels.push_back(&amx::table);
#endif
#endif
  return levels;
}

namespace {

// Levels that only exist in test builds and only run when named.
std::vector<const Kernels*> testKernels() {
  std::vector<const Kernels*> levels;
#ifdef HPFORMER_HAVE_wide
  if (detect().avx2) levels = {&wide::table, &wide_tiles::table};
#endif
  return levels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = *[] {
    const std::vector<const Kernels*> levels = availableKernels();
    const char* wanted = std::getenv("HPFORMER_ISA");
    for (const auto& list : {levels, testKernels()})
      for (const Kernels* level : list)
        if (wanted && std::strcmp(level->isa, wanted) == 0) return level;
    return levels.back();
  }();
  return chosen;
}

}  // namespace hpformer
