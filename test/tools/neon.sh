#!/usr/bin/env bash
# The CPU engine's property tests at the NEON level: cross-built for arm64, run under qemu-user. test/tools/neon.sh [cases]
# Needs g++-aarch64-linux-gnu and qemu-user (Debian's names), unless this machine is arm64 itself; ends with 77 without them.
set -euo pipefail
cd "$(dirname "$0")/../.."
cases=${1:-100}
build=build-neon
run=()
options=(-DHPFORMER_TESTS=ON -DHPFORMER_CUDA=OFF -DCMAKE_JS_INC=)
if [ "$(uname -m)" != aarch64 ]; then
  for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
    command -v "$tool" > /dev/null || { echo "skipped: $tool is not installed"; exit 77; }
  done
  options+=(-DCMAKE_TOOLCHAIN_FILE=binding/toolchains/aarch64-linux.cmake)
  run=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
fi
cmake -S . -B "$build" "${options[@]}" > /dev/null
cmake --build "$build" --target cpu_test --parallel "${JOBS:-2}" > /dev/null
for precision in float32 bfloat16; do
  "${run[@]}" "$build/test/native/cpu_test" "${SEED:-1}" "$cases" "$precision"
done
