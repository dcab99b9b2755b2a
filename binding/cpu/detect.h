#pragma once
#include <vector>

#include "kernels.h"

namespace hpformer {

// Every level compiled in that this machine can run, lowest first; never empty.
std::vector<const Kernels*> availableKernels();

}  // namespace hpformer
