// `kernels.*`: each step of the model as a function on plain arrays. float32 runs the kernels of the CPU backend (embed
// and the head's link: the reference, rounded), float64 the reference.
//
// All arrays are row-major; B batch, L steps, d hidden, S segments, b length (steps in one segment, S·b >= L).
// Enumerations are the ordinals of binding/contract/spec.h. Names in [] are optional.
//
// name                   parameters                                   inputs outputs embed                  batch steps
// hidden kind size padding         x [B,L,size] | [B,L] or tokens [B,L];      out [B,L,d]
//                        positions scaleInput maximum                 weight, bias (as embedding.*); [positions];
//                        (size: features or vocabulary)               [normWeight normBias]
// segmentPool            batch steps hidden segments length pooling   x [B,L,d]                                  out
// [B,S,d] extraSegmentAttention  batch segments hidden                        x [B,S,d] out [B,S,d] [weights [B,S,S]]
// intraSegmentAttention  batch steps hidden segments length           extra [B,S,d], x [B,L,d]                   out
// [B,S,d] [weights [B,L]] fusion                 batch segments hidden                        extra, intra [B,S,d],
// weight [d,2d], bias  out [B,S,d] tdhp                   batch steps hidden segments length pooling   x [B,L,d],
// weight [d,2d], bias [d]         out [B,S,d] keyAttention           batch steps hidden segments heads            x
// [B,L,d], keys [B,S,d]                    out [B,L,d] [weights [B,L,heads,S]] norm                   rows hidden norm
// x [rows,d], weight, [bias mean variance]   out [rows,d] dense                  rows inputs outputs activation x
// [rows,inputs], weight [outputs,inputs],  out [rows,outputs]
//                                                                     [bias [outputs]]
// layer                  batch steps hidden segments heads            x [B,L,d], keys [B,S,d], output [d,d],     out
// [B,L,d]
//                        activation norm                              feedForward [d,d], feedForwardBias [d],
//                                                                     norm1Weight [norm1Bias norm1Mean norm1Variance],
//                                                                     norm2…
// head                   rows inputs labels link                      x [rows,inputs], weight [labels,inputs],   logits
// [rows,labels]
//                                                                     [bias [labels]] [probabilities]
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "binding/contract/kernel_device.h"
#include "binding/contract/status.h"

namespace hpformer {

template <typename Real>
struct KernelArray {
  Real* data = nullptr;
  int64_t size = 0;
};

template <typename Real>
struct KernelCall {
  std::string name;
  std::map<std::string, double> parameters;
  std::map<std::string, KernelArray<const Real>> inputs;
  std::map<std::string, KernelArray<const int32_t>> integers;
  std::map<std::string, KernelArray<Real>> outputs;
  int device = -1;      // ordinal of a CUDA device (float32 only); -1: the CPU
  KernelTiming timing;  // on a CUDA device
};

// Checks every size against the parameters, then computes on the calling thread. Never throws.
template <typename Real>
Status runKernel(const KernelCall<Real>& call);

}  // namespace hpformer
