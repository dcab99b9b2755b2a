#!/usr/bin/env bash
# Line coverage of both languages, as one command: test/tools/coverage.sh [typescript|native]
# TypeScript: everything that runs src or dist under jest (the addon as it is built), with what child processes and worker threads
# ran of dist counted by V8. C++: gcov over the native tests and the jest tests of the addon. Prints the files that are not whole and a
# figure of each; fails below 98 % (TypeScript) or 95 % (C++), when a native status is answered with in no test, or when a test fails.
# C++ is cuda/*.cc too where nvcc and a driver library are (cuda.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
what=${1:-all}
out=build-coverage
mkdir -p "$out"
failed=0
jest=(node node_modules/jest/bin/jest.js --runInBand --silent --testTimeout=300000)

if [ "$what" != native ]; then
  node binding/ensure.cjs
  # Child processes run dist: with source maps, their own counts can be led back to src.
  trap 'npm run --silent build:ts' EXIT
  node_modules/.bin/tsc -p tsconfig.build.json --inlineSourceMap
  rm -rf "$out/children" "$out"/typescript-*
  # Package, house, counted instructions and CUDA kernels run no line of src that the others do not; the determinism and thread tests
  # are repetitions.
  leave_out=(test/package test/house test/cuda test/bench/callgrind test/golden/rewrites test/trust/determinism test/trust/threads test/session/process)
  export FUZZ_SECONDS=${FUZZ_SECONDS:-5}  # six targets searched by the clock: what the cases miss is not in the lines
  parts=()
  for part in 1 2; do
    HPFORMER_CHILD_COVERAGE="$PWD/$out/children" "${jest[@]}" --shard="$part/2" --coverage --coverageReporters=json --collectCoverageFrom='src/**/*.ts' --collectCoverageFrom='dist/**/*.js' \
      --coverageDirectory="$out/typescript-$part" --testPathIgnorePatterns "${leave_out[@]}" >"$out/typescript-$part.log" 2>&1 &
    parts+=($!)
  done
  for part in "${parts[@]}"; do wait "$part" || failed=1; done
  grep -hE '^ *●|^Tests:' "$out"/typescript-[12].log || true
  node test/tools/coverage.cjs "$out/children" "$out"/typescript-[12]/coverage-final.json || failed=1
fi

if [ "$what" != typescript ]; then
  native="$out/native"
  source test/tools/cuda.sh
  cmake -S . -B "$native" -DCMAKE_BUILD_TYPE=Debug -DHPFORMER_TESTS=ON -DHPFORMER_TEST_MODELS=30 -DHPFORMER_CUDA="$cuda" \
    -DCMAKE_CXX_FLAGS="--coverage -O1" -DCMAKE_SHARED_LINKER_FLAGS=--coverage -DCMAKE_EXE_LINKER_FLAGS=--coverage \
    -DHPFORMER_OUTPUT_DIRECTORY="$PWD/$native/build/Release" >"$out/native-build.log"
  cuda_kernels "$native"
  cmake --build "$native" --parallel "${JOBS:-2}" >>"$out/native-build.log"
  find "$native" -name '*.gcda' -delete
  ctest --test-dir "$native" --exclude-regex '^cuda.*_(cc90|truncated)$' --output-on-failure --parallel "${JOBS:-2}" | tail -n 4 || failed=1
  HPFORMER_PREBUILD="$PWD/$native" "${jest[@]}" test/unit/native test/unit/model test/session/model test/session/stream \
    test/session/abort test/trust/memory test/golden/valid test/cuda/kernels test/cuda/life >"$out/native.log" 2>&1 || failed=1
  grep -hE '^ *●|^Tests:' "$out/native.log" || true
  node test/tools/gcov.cjs "$native" || failed=1
fi
exit $failed
