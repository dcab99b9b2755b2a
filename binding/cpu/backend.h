// The CPU backend's door.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "binding/contract/backend.h"
#include "binding/contract/reference_steps.h"

namespace hpformer {

struct CpuOptions {
  Precision precision = Precision::float32;
  int threads = 0;  // threads of one run; 0: defaultThreads()
  std::string key;  // packed weights are shared by equal keys in the process
};

int defaultThreads();    // HPFORMER_THREADS, else the container's CPU quota, else the cores
std::string isaInUse();  // highest level this machine runs, or the lower one HPFORMER_ISA asks for
struct TileSize {
  int64_t tokens, sequences;  // of one sequence; side by side when one step of each is read
};
TileSize tileInUse();
std::vector<std::string> isaLevels();  // all levels compiled in that this machine can run, lowest first
Status createCpuBackend(const Spec& spec, std::shared_ptr<const Weights> weights, const CpuOptions& options,
                        std::unique_ptr<Backend>* out);

// The kernel table in use on plain float rows, on the calling thread: `kernels.*` of the package. Arguments as in
// binding/contract/reference_steps.h, for one sequence; they throw std::bad_alloc.
namespace cpu {

void denseRows(const float* x, int64_t rows, int64_t inputs, const float* weight, const float* bias, int64_t outputs,
               Activation activation, float* y);
void normRows(NormKind kind, const reference::NormArrays<float>& w, const float* x, int64_t rows, int64_t hidden,
              float* y);
void poolRows(const float* x, int64_t steps, int64_t hidden, int64_t segments, int64_t length, Pooling pooling,
              float* out);
void extraRows(const float* pool, int64_t segments, int64_t hidden, float* extra, float* weights);
void intraRows(const float* extra, const float* x, int64_t steps, int64_t hidden, int64_t segments, int64_t length,
               float* intra, float* weights);
void fusionRows(const float* extra, const float* intra, int64_t rows, int64_t hidden, const float* weight,
                const float* bias, float* keys);
void tdhpRows(const float* x, int64_t steps, int64_t hidden, int64_t segments, int64_t length, Pooling pooling,
              const float* weight, const float* bias, float* keys);
void keyAttentionRows(const float* x, int64_t steps, int64_t hidden, const float* keys, int64_t segments, int64_t heads,
                      float* y, float* weights);
void layerRows(const float* x, int64_t steps, int64_t hidden, const float* keys, int64_t segments, int64_t heads,
               const reference::LayerArrays<float>& w, NormKind kind, Activation activation, float* y);

}  // namespace cpu

}  // namespace hpformer
