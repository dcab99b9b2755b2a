// The CUDA backend's door. Without nvcc at build time cuda/absent.cc stands behind it and says so.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "binding/contract/backend.h"
#include "binding/contract/kernel_device.h"

namespace hpformer {

struct CudaDeviceInfo {
  int ordinal = 0;
  std::string name;
  std::string capability;  // "8.0"
  int64_t memory = 0;      // bytes
};

struct CudaOptions {
  int device = 0;  // ordinal; -1: all devices, batches split over them
  Precision precision = Precision::float32;
  std::string key;  // packed weights are shared by equal keys on one device
};

bool cudaCompiledIn();
// Fills the devices, or says in `reason` why there are none (no driver library, too old, no device, not compiled in).
std::vector<CudaDeviceInfo> cudaDevices(std::string* reason);
Status createCudaBackend(const Spec& spec, std::shared_ptr<const Weights> weights, const CudaOptions& options,
                         std::unique_ptr<Backend>* out);
// `kernels.*` on one device, float32.
Status createCudaKernels(int ordinal, const KernelTiming& timing, std::unique_ptr<KernelDevice>* out);

}  // namespace hpformer
