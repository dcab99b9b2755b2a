# Sourced by sanitize.sh and coverage.sh. The host code of cuda/ takes part where nvcc and a driver library are there (the one that
# HPFORMER_CUDA_LIBRARY names, else the stand-in); HPFORMER_CUDA=OFF leaves it out. The stand-in itself is neither watched nor counted.
cuda=${HPFORMER_CUDA:-}
if [ -z "$cuda" ]; then
  cuda=OFF
  if command -v nvcc >/dev/null; then
    driver=${HPFORMER_CUDA_LIBRARY:-$(node test/tools/gpusim.cjs)}
    if [ -f "$driver" ]; then
      cuda=ON
      export HPFORMER_CUDA_LIBRARY="$driver"
    fi
  fi
fi

# Kernels for a build folder that is configured: those of build/, so that nvcc does not run again.
cuda_kernels() {
  [ "$cuda" = ON ] || return 0
  node binding/ensure.cjs --tests
  cp -R build/hpformer_*.fatbin build/ptx "$1"
  find "$1"/hpformer_*.fatbin "$1/ptx" -exec touch {} +
}
