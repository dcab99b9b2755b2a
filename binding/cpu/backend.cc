#include "backend.h"

#include <new>

#include "detect.h"
#include "engine/run.h"
#include "packed.h"

namespace hpformer {
namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(std::shared_ptr<const Packed> packed, int threads) : packed_(std::move(packed)), threads_(threads) {}

  Status run(const Request<float>& request, const Plan& plan, const CancelFlag& cancel) override {
    return cpu::runBatch(*packed_, request, plan, cancel, threads_);
  }
  int64_t packedBytes() const override { return packed_->bytes; }

 private:
  const std::shared_ptr<const Packed> packed_;
  const int threads_;
};

}  // namespace

std::string isaInUse() { return kernels().isa; }

TileSize tileInUse() { return {kernels().tile, kernels().group}; }

std::vector<std::string> isaLevels() {
  std::vector<std::string> names;
  for (const Kernels* level : availableKernels()) names.emplace_back(level->isa);
  return names;
}

Status createCpuBackend(const Spec& spec, std::shared_ptr<const Weights> weights, const CpuOptions& options,
                        std::unique_ptr<Backend>* out) {
  try {
    const Precision precision = operandPrecision(spec.hidden, options.precision);
    auto packed = Packed::get(spec, std::move(weights), options.key, precision);
    *out = std::make_unique<CpuBackend>(std::move(packed), options.threads > 0 ? options.threads : defaultThreads());
    return {};
  } catch (const std::bad_alloc&) {
    return {StatusCode::memory, "out of memory while packing weights"};
  }
}

}  // namespace hpformer
