#!/usr/bin/env bash
# Fuzzes every reader: test/tools/fuzz.sh [seconds for each target, default 60] [target ...]
# With Jazzer.js (coverage as a guide) where its binary loads (glibc 2.38 or newer), else by seeded mutation alone.
# Then native code with libFuzzer (fuzz-native.sh), unless targets are named.
# Findings are written to build-fuzz/: keep each in test/fuzz/findings, named <target>-<what>.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
shift || true
node_modules/.bin/tsc -p tsconfig.json --noEmit false --rootDir . --outDir build-fuzz
ln -sfn "$PWD/test/fixtures" build-fuzz/test/fixtures
ln -sfn "$PWD/examples" build-fuzz/examples
[ -d test/fuzz/node_modules ] || npm install --prefix test/fuzz --ignore-scripts --no-audit --no-fund --no-package-lock ||
  echo "Jazzer.js could not be installed"
if ! (cd test/fuzz && node -e "require('@jazzer.js/fuzzer')") 2>build-fuzz/jazzer.log; then
  echo "fuzz: skipped Jazzer.js, which does not load here ($(grep -m1 -oE "version .* not found|Cannot find module [^ ]*" build-fuzz/jazzer.log || echo unknown)); mutating without coverage"
  node build-fuzz/test/fuzz/long.js "$seconds" "$@"
  if [ $# -eq 0 ]; then exec bash test/tools/fuzz-native.sh "$seconds"; fi
  exit 0
fi
all=$(node build-fuzz/test/fuzz/jazzer.js build-fuzz/corpus)
for target in ${*:-$all}; do
  echo "== $target"
  FUZZ_TARGET=$target node test/fuzz/node_modules/@jazzer.js/core/dist/cli.js build-fuzz/test/fuzz/jazzer build-fuzz/corpus/"$target" \
    --includes build-fuzz/src --excludes node_modules -- \
    -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix=build-fuzz/"$target"-
done
if [ $# -eq 0 ]; then exec bash test/tools/fuzz-native.sh "$seconds"; fi
