// Compiled once per ISA level with that level's flags and HPFORMER_ISA=<level>. Exports one constant, the table.
#include "binding/cpu/kernels.h"
#include "binding/cpu/isa/simd.h"
#include "binding/cpu/kernels/math.inl"
#include "binding/cpu/kernels/gemm.inl"
#include "binding/cpu/kernels/norm.inl"
#include "binding/cpu/kernels/attention.inl"
#include "binding/cpu/kernels/rows.inl"
#include "binding/cpu/kernels/scan.inl"
#include "binding/cpu/kernels/transpose.inl"

#define HPFORMER_TEXT2(x) #x
#define HPFORMER_TEXT(x) HPFORMER_TEXT2(x)

namespace hpformer::HPFORMER_ISA {

extern const Kernels table;
const Kernels table{HPFORMER_TEXT(HPFORMER_ISA),
                    W,
                    kPanel,
                    kTile,
                    kGroup,
                    gemm,
                    norm,
                    keyScores,
                    keyAttentionLanes,
                    scanBlock,
                    rowsSum,
                    rowsMax,
                    dot,
                    axpy,
                    scaleRow,
                    layernormRow,
                    softmaxRow,
                    toLanes,
                    fromLanes,
                    link,
                    matvec,
                    normRow};

}  // namespace hpformer::HPFORMER_ISA
