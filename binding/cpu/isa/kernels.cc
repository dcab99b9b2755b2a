// Compiled once per ISA level with that level's flags and HPFORMER_ISA=<level>. Exports one constant, the table.
#include "binding/cpu/kernels.h"
#include "binding/cpu/isa/simd.h"
#include "binding/cpu/isa/tuning.h"
#include "binding/cpu/kernels/math.inl"
#include "binding/cpu/kernels/gemm.inl"
#include "binding/cpu/kernels/norm.inl"
#include "binding/cpu/kernels/attention.inl"
#include "binding/cpu/kernels/rows.inl"
#include "binding/cpu/kernels/scan.inl"
#include "binding/cpu/kernels/transpose.inl"
#if HPFORMER_FIXED
#include "binding/cpu/kernels/fixed.inl"
#endif
#if HPFORMER_TILES
#include "binding/cpu/isa/tiles.h"
#include "binding/cpu/kernels/tiles.inl"
#endif

#define HPFORMER_TEXT2(x) #x
#define HPFORMER_TEXT(x) HPFORMER_TEXT2(x)

namespace hpformer::HPFORMER_ISA {
namespace {

#if HPFORMER_TILES
static void gemmOf(const Gemm& g) { g.tiles ? gemmTiles(g) : gemm(g); }
static void keyScoresOf(const KeyScores& a) {
  if (!a.tiles) return keyScores(a);
  scoresOnTiles(a);
  for (int64_t g = 0; g < a.heads; ++g)
    for (int64_t col = 0; col < a.cols; col += W)
      softmaxLanes(a.p + g * a.segments * a.ld + col, a.segments, a.ld, a.scale);
}
#else
constexpr int64_t kDepth = 0;
constexpr auto keyScoresOf = keyScores;
constexpr decltype(Kernels::packTiles) packTiles = nullptr;
constexpr decltype(Kernels::release) releaseTiles = nullptr;
#if !HPFORMER_FIXED
constexpr auto gemmOf = gemm;
#endif
#endif
#if HPFORMER_FIXED
static void gemmOf(const Gemm& g) { g.fixed.pairs ? gemmFixed(g) : gemm(g); }
static void matvecOf(const Gemm& g) { g.fixed.pairs ? matvecFixed(g) : matvec(g); }
#else
constexpr auto matvecOf = matvec;
constexpr int64_t kFixedDepth = 0;
constexpr decltype(Kernels::packFixed) packFixed = nullptr;
#endif

}  // namespace

extern const Kernels table;
const Kernels table{HPFORMER_TEXT(HPFORMER_ISA),
                    W,
                    kPanel,
                    kTuning.tokens,
                    kTuning.sequences,
                    gemmOf,
                    norm,
                    keyScoresOf,
                    keyAttentionLanes,
                    scanBlock,
                    rowsSum,
                    rowsMix,
                    rowsMax,
                    dot,
                    axpy,
                    scaleRow,
                    layernormRow,
                    softmaxRow,
                    toLanes,
                    fromLanes,
                    link,
                    matvecOf,
                    normRow,
                    kDepth,
                    packTiles,
                    kFixedDepth,
                    packFixed,
                    releaseTiles};

}  // namespace hpformer::HPFORMER_ISA
