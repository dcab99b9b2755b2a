// `kernels.*`: each step of the model as a function on plain arrays. float32 runs the kernels of the CPU backend
// (positions, the norm of `embed` and the head's link: the reference, rounded), or with a device the CUDA backend's;
// float64 the reference.
//
// All arrays are row-major; B batch, L steps, d hidden, S segments, b length (steps in one segment, S*b >= L).
// Enumerations are the ordinals of binding/contract/spec.h. Names in [] are optional.
//
// clang-format off
//   embed                  parameters: batch steps hidden kind size padding positions scaleInput maximum (size: features, vocabulary)
//                          in: x [B,L,size] | [B,L] or tokens [B,L]; weight, bias (as embedding.*); [positions]; [normWeight normBias]
//                          out: out [B,L,d]
//   segmentPool            parameters: batch steps hidden segments length pooling
//                          in: x [B,L,d]; out: out [B,S,d]
//   extraSegmentAttention  parameters: batch segments hidden
//                          in: x [B,S,d]; out: out [B,S,d], [weights [B,S,S]]
//   intraSegmentAttention  parameters: batch steps hidden segments length
//                          in: extra [B,S,d], x [B,L,d]; out: out [B,S,d], [weights [B,L]]
//   fusion                 parameters: batch segments hidden
//                          in: extra, intra [B,S,d], weight [d,2d], bias [d]; out: out [B,S,d]
//   tdhp                   parameters: batch steps hidden segments length pooling
//                          in: x [B,L,d], weight [d,2d], bias [d]; out: out [B,S,d]
//   keyAttention           parameters: batch steps hidden segments heads
//                          in: x [B,L,d], keys [B,S,d]; out: out [B,L,d], [weights [B,L,heads,S]]
//   norm                   parameters: rows hidden norm
//                          in: x [rows,d], weight, [bias mean variance]; out: out [rows,d]
//   dense                  parameters: rows inputs outputs activation
//                          in: x [rows,inputs], weight [outputs,inputs], [bias [outputs]]; out: out [rows,outputs]
//   layer                  parameters: batch steps hidden segments heads activation norm
//                          in: x [B,L,d], keys [B,S,d], output [d,d], feedForward [d,d], feedForwardBias [d],
//                              norm1Weight [norm1Bias norm1Mean norm1Variance], norm2...
//                          out: out [B,L,d]
//   head                   parameters: rows inputs labels link
//                          in: x [rows,inputs], weight [labels,inputs], [bias [labels]]; out: logits [rows,labels], [probabilities]
// clang-format on
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
