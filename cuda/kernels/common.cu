// Kernels that do not depend on width or precision: the unfused path.
#include "head.cuh"
#include "unfused_layers.cuh"
#include "unfused_tdhp.cuh"
