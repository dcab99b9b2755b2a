#!/usr/bin/env bash
# valgrind memcheck: the native tests of contract and model whole, the CPU engine on some random models, and one run inside Node
# (interpreted: memcheck follows no generated code). test/tools/valgrind.sh; needs valgrind and a build with tests (test/setup.cjs).
set -euo pipefail
cd "$(dirname "$0")/../.."
watch="valgrind --quiet --error-exitcode=9 --num-callers=30"
for program in model_test reference_test; do
  $watch --leak-check=full --errors-for-leak-kinds=definite build/test/native/$program
  echo "valgrind: build/test/native/$program: no error"
done
for level in baseline avx2; do
  HPFORMER_ISA=$level $watch --leak-check=full --errors-for-leak-kinds=definite build/test/native/cpu_test 1 12 float32
  echo "valgrind: cpu_test at $level: no error"
done
# What Node and V8 keep or read is theirs; a report that names the addon is ours.
log=$(mktemp)
valgrind --log-file="$log" --num-callers=30 node --jitless --no-node-snapshot -e "
const hp = require('$PWD');
(async () => {
  const model = await hp.HPformer.create(hp.presets.mortality({ hidden: 16, layers: 1, embedding: { size: 5 } }), { device: 'cpu', threads: 2, seed: 1 });
  const feeds = { features: new hp.Tensor('float32', new Float32Array(2 * 48 * 5).fill(0.5), [2, 48, 5]) };
  const [a, b] = await Promise.all([model.run(feeds), model.run(feeds)]);
  if (a.logits.data[0] !== b.logits.data[0]) throw new Error('two answers');
  model.dispose();
})();"
if grep -q 'hpformer\.node' "$log"; then
  cat "$log"
  exit 1
fi
rm "$log"
echo 'valgrind: one model inside Node: no error in the addon'
