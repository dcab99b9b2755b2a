// The CPU backend's door.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "binding/contract/backend.h"

namespace hpformer {

struct CpuOptions {
  Precision precision = Precision::float32;
  int threads = 0;   // threads of one run; 0: defaultThreads()
  std::string key;   // packed weights are shared by equal keys in the process
};

int defaultThreads();                       // HPFORMER_THREADS, else the container's CPU quota, else the cores
std::string isaInUse();                     // highest level this machine runs, or the lower one HPFORMER_ISA asks for
std::vector<std::string> isaLevels();       // all levels compiled in that this machine can run, lowest first
Status createCpuBackend(const Spec& spec, std::shared_ptr<const Weights> weights, const CpuOptions& options,
                        std::unique_ptr<Backend>* out);

}  // namespace hpformer
