// The one translation unit of the fatbin: a module has one image, so everything is included here.
#include "unfused_layers.cuh"
#include "unfused_tdhp.cuh"
#include "stack.cuh"
