#!/usr/bin/env bash
# Line coverage of both languages: TypeScript by jest, C++ by gcov over the native tests and jest together.
# test/tools/coverage.sh [jest arguments]; prints a table of each, and fails below 98 % (TypeScript) or 95 % (C++).
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build-coverage
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Debug -DHPFORMER_TESTS=ON -DHPFORMER_CUDA="${HPFORMER_CUDA:-OFF}" \
  -DCMAKE_CXX_FLAGS="--coverage -O1" -DCMAKE_SHARED_LINKER_FLAGS=--coverage -DCMAKE_EXE_LINKER_FLAGS=--coverage \
  -DHPFORMER_OUTPUT_DIRECTORY="$PWD/$build/build/Release"
cmake --build "$build" --parallel "${JOBS:-2}"
find "$build" -name '*.gcda' -delete
ctest --test-dir "$build" --output-on-failure
# Child processes (command line, workers, examples) run dist: with source maps and V8's own counts they are counted, too.
children="$PWD/$build/children"
rm -rf "$children" coverage
node_modules/.bin/tsc -p tsconfig.build.json --inlineSourceMap
failed=0
HPFORMER_CHILD_COVERAGE="$children" HPFORMER_PREBUILD="$PWD/$build" node node_modules/jest/bin/jest.js --runInBand --coverage \
  --coverageReporters=json --testTimeout=300000 --testPathIgnorePatterns test/package test/house "$@" || failed=1
npm run --silent build:ts
node test/tools/coverage.cjs "$children" || failed=1
node test/tools/gcov.cjs "$build" || failed=1
exit $failed
