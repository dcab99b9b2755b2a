#!/usr/bin/env bash
# Line coverage of both languages: TypeScript by jest, C++ by gcov over the native tests and jest together.
# test/tools/coverage.sh [jest arguments]; writes coverage/ and prints a table.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build-coverage
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Debug -DHPFORMER_TESTS=ON -DHPFORMER_CUDA="${HPFORMER_CUDA:-OFF}" \
  -DCMAKE_CXX_FLAGS="--coverage -O1" -DCMAKE_SHARED_LINKER_FLAGS=--coverage -DCMAKE_EXE_LINKER_FLAGS=--coverage \
  -DHPFORMER_OUTPUT_DIRECTORY="$PWD/$build/build/Release"
cmake --build "$build" --parallel "${JOBS:-2}"
find "$build" -name '*.gcda' -delete
ctest --test-dir "$build" --output-on-failure
HPFORMER_PREBUILD="$PWD/$build" node node_modules/jest/bin/jest.js --runInBand --coverage --coverageReporters=json-summary \
  --coverageReporters=text-summary --testPathIgnorePatterns test/package test/house "$@"
node test/tools/gcov.cjs "$build"
