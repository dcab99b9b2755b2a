// Stands in for the backend when the addon is built without CUDA kernels.
#include "backend.h"

namespace hpformer {
namespace {
constexpr const char* kReason = "this build has no CUDA kernels (nvcc was not found, or HPFORMER_CUDA=OFF)";
}

bool cudaCompiledIn() { return false; }

std::vector<CudaDeviceInfo> cudaDevices(std::string* reason) {
  *reason = kReason;
  return {};
}

Status createCudaBackend(const Spec&, std::shared_ptr<const Weights>, const CudaOptions&, std::unique_ptr<Backend>*) {
  return {StatusCode::device, kReason};
}

Status createCudaKernels(int, const KernelTiming&, std::unique_ptr<KernelDevice>*) {
  return {StatusCode::device, kReason};
}

}  // namespace hpformer
