#!/usr/bin/env node
// Counts what the kernels do on the published shapes, on the simulated driver: launches, bytes, sectors, bank conflicts,
// tensor-core share, padding, fused beside unfused. Nothing here is a time. Needs dist/, the addon and the simulator's
// library (HPFORMER_CUDA_LIBRARY, or the one that test/setup.cjs built).
//
//   node cuda/counters.cjs            tables
//   node cuda/counters.cjs --write    puts them into cuda/README.md
//   node cuda/counters.cjs --json     every figure
'use strict';
const { spawnSync } = require('node:child_process');
const { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');

const throughput = require('./throughput.cjs');

const root = join(__dirname, '..');
const library = process.env.HPFORMER_CUDA_LIBRARY ?? join(root, 'build-gpusim', 'libcuda.so.1');

/** Batches of the published models. `rows`: rows that the readout needs of each sequence. */
const cases = [
  { name: 'mortality', preset: 'mortality', batch: 32, steps: 48, rows: 1, launches: 1 },
  { name: 'mortality B=128', preset: 'mortality', batch: 128, steps: 48, rows: 1, launches: 1 },
  { name: 'decompensation', preset: 'decompensation', batch: 8, steps: 504, rows: 504, launches: 1 },
  { name: 'hidden 64, all steps', preset: 'decompensation', hidden: 64, batch: 8, steps: 504, rows: 504, launches: 1 },
  { name: 'text', preset: 'text', batch: 2, steps: 1000, rows: 1000, launches: 1 },
];

function configOf(presets, { preset, hidden, layers }) {
  return presets[preset]({ ...(hidden && { hidden }), ...(layers && { layers }) });
}

// ---- in the child: the model runs under the simulator, which writes its report when the process ends ----

function feeds(config, { batch, steps }) {
  let state = 7;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const { kind, size, vocabulary } = config.embedding;
  if (kind === 'features') {
    const data = Float32Array.from({ length: batch * steps * size }, () => 2 * next() - 1);
    return { features: { type: 'float32', data, dims: [batch, steps, size] } };
  }
  // No padding token: every row is read.
  const data = Int32Array.from({ length: batch * steps }, () => 2 + Math.floor(next() * (vocabulary - 2)));
  return { tokens: { type: 'int32', data, dims: [batch, steps] } };
}

async function child({ one, precision, path, runs }) {
  const { HPformer, presets } = require('../dist/index.js');
  const config = configOf(presets, one);
  const rewrites = { depthFirst: path === 'fused' };
  const model = await HPformer.create(config, { device: 'cuda:0', precision, rewrites });
  for (let i = 0; i < runs; ++i) await model.run(feeds(config, one));
  model.dispose();
}

// ---- in the parent ----

/** The simulator's report of `runs` runs of a case. */
function report(options, folder) {
  const file = join(folder, 'report.json');
  // The other tests check; counts are the same. One thread starts blocks one after the other: none waits for keys then,
  // and counts do not depend on chance.
  const checks = { GPUSIM_CHECKS: '0', GPUSIM_VERBOSE: '0', ...(options.path === 'fused' && { GPUSIM_THREADS: '1' }) };
  const env = { ...process.env, ...checks, HPFORMER_CUDA_LIBRARY: library, GPUSIM_REPORT: file, GPUSIM_CC: options.cc };
  const run = spawnSync(process.execPath, [__filename, '--child', JSON.stringify(options)], { env, encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`counting ${options.one.name} failed: ${run.stderr}`);
  return JSON.parse(readFileSync(file, 'utf8'));
}

/**
 * Bytes that a batch cannot do without: inputs once, every packed array that the fused kernels read once, outputs once.
 * `weights` is what a block of `stack` with TDHP inside reads, the table of positions included. The packing is cuda/model.cc's.
 */
function compulsory(config, one, precision) {
  const { segmentsOf } = require('../dist/config/segments.js');
  const { hidden: d, layers, embedding, head } = config;
  const half = precision === 'bfloat16';
  const element = half ? 2 : 4;
  const features = embedding.kind === 'features' ? embedding.size : 0;
  const chunk = 64 / element;
  const stream = (features > 0 ? Math.ceil(features / chunk) * 64 * d : 0) + layers * 2 * d * d * element;
  const vectors = layers * 5 * d * 4;
  let width = d;
  let heads = 0;
  for (const size of [...head.layers.map((layer) => layer.size), head.labels]) {
    heads += 4 * (size * width + size);
    width = size;
  }
  const wide = Math.ceil(features / 8) * 8;
  const tdhp = half
    ? 2 * (wide * d + 2 * d * d) + 4 * d // W itself is in the stream
    : 4 * (features * d + wide * d + 2 * d * d + d);
  const cells = one.batch * one.steps;
  // Position vectors once, and for features their running sums in double at the segments' borders.
  const segments = segmentsOf(config, one.steps).count;
  const rows = features > 0 ? 2 * d * (segments + 1) : Math.min(embedding.vocabulary, cells) * d;
  const tables = 4 * (one.steps * d + rows);
  const inputs = features > 0 ? cells * features * 4 : cells * 4 * 3; // tokens, positions, list of rows
  const outputs = one.batch * (config.readout === 'steps' ? one.steps : 1) * head.labels * 4 * 2;
  const weights = stream + vectors + tdhp + heads;
  const facts = 32 * one.batch; // SequenceInfo
  const listed = config.readout === 'step' ? 4 * cells : 0; // copied, but only its first entries are read
  const total = inputs + weights + tables + outputs + facts;
  return { inputs, weights: weights + (features > 0 ? tables : 0), outputs, total, toDevice: inputs + facts + listed };
}

/**
 * FLOPs that the definition asks of the matrix instructions: embedding of the rows read, two products a layer, attention over
 * S keys where rows are not packed (packed rows attend by plain arithmetic), and in bfloat16 TDHP's products, once.
 */
function usefulFlops(config, one, precision) {
  const { segmentsOf } = require('../dist/config/segments.js');
  const { hidden: d, layers, embedding } = config;
  const embed = embedding.kind === 'features' ? 2 * embedding.size * d : 0;
  const segments = segmentsOf(config, one.steps).count;
  const attention = one.rows > 1 ? 4 * segments * d : 0;
  const tdhp = precision === 'bfloat16' ? segments * (3 * embed + 4 * d * d) : 0;
  return one.batch * (one.rows * (embed + layers * (4 * d * d + attention)) + tdhp);
}

/** Sums of the counters over a report's kernels, and the ratios that the project has goals for. */
function metrics({ kernels, api }, one, precision, config) {
  const all = Object.values(kernels);
  const sum = (pick) => all.reduce((total, kernel) => total + pick(kernel), 0);
  const bf16 = sum((k) => k.flops.mma_bf16);
  const tf32 = sum((k) => k.flops.mma_tf32);
  const plain = sum((k) => k.flops.fp32 + k.flops.fp16 + k.flops.fp64 + k.flops.sfu);
  const ideal = sum((k) => k.shared.ideal_wavefronts);
  const wavefronts = sum((k) => k.shared.wavefronts);
  const sectors = sum((k) => k.global_load.sectors + k.global_store.sectors);
  const least = compulsory(config, one, precision);
  const unique = sum((k) => k.unique_read_bytes + k.unique_write_bytes);
  const stacks = Object.entries(kernels).filter(([name]) => name.includes('stack'));
  // Rows of a tile: 16 for every warp's tile (the end of the name) and every 128 threads. Other blocks only compute keys.
  let tiles = 0;
  let tileRows = 0;
  for (const [name, k] of stacks) {
    const height = (16 * Number(name.slice(-1)) * k.threads_per_block_max) / 128;
    const here = one.rows > 1 ? k.launches * one.batch * Math.ceil(one.rows / height) : k.blocks;
    tiles += here;
    tileRows += here * height;
  }
  const tilesPerSequence = one.rows === 1 ? 1 : tiles / one.batch;
  const allowed = 1.1 * (sum((k) => k.blocks) * least.weights + 3 * least.inputs * tilesPerSequence + least.outputs);
  const matrix = bf16 + tf32;
  const useful = usefulFlops(config, one, precision) * (tf32 > 0 ? 3 : 1);
  return {
    launches: sum((k) => k.launches),
    blocks: sum((k) => k.blocks),
    warpInstructions: sum((k) => k.warp_instructions_total),
    uniqueBytes: unique,
    compulsoryBytes: least.total,
    uniqueOverCompulsory: unique / least.total,
    sectorBytes: 32 * sectors,
    sectorBound: allowed,
    sectorsOverBound: (32 * sectors) / allowed,
    coalescing: sum((k) => k.global_load.ideal_sectors + k.global_store.ideal_sectors) / sectors,
    sharedWavefronts: wavefronts,
    localBytes: sum((k) => k.local_bytes),
    conflicts: (wavefronts - ideal) / Math.max(1, wavefronts),
    mmaBf16Flops: bf16,
    mmaTf32Flops: tf32,
    plainFlops: plain,
    fp32Flops: sum((k) => k.flops.fp32),
    tensorShare: matrix / (matrix + plain),
    padding: matrix > 0 ? Math.max(0, 1 - useful / matrix) : 0,
    liveRows: tileRows > 0 ? (one.batch * one.rows) / tileRows : 1,
    inputBytes: least.toDevice,
    resultBytes: api.bytes_device_to_host,
    kernels: Object.fromEntries(
      Object.entries(kernels).map(([name, k]) => [
        name.replace('hpformer_', ''),
        {
          launches: k.launches,
          blocks: k.blocks,
          threads: k.threads_per_block_max,
          shared: k.dynamic_shared_bytes_max + k.static_shared_bytes,
          uniqueBytes: k.unique_read_bytes + k.unique_write_bytes,
          sectorBytes: 32 * (k.global_load.sectors + k.global_store.sectors),
          coalescing:
            (k.global_load.ideal_sectors + k.global_store.ideal_sectors) /
            (k.global_load.sectors + k.global_store.sectors),
          sharedWavefronts: k.shared.wavefronts,
          conflicts: k.shared.bank_conflict_extra_wavefronts / Math.max(1, k.shared.wavefronts),
          warpInstructions: k.warp_instructions_total,
          mmaBf16Flops: k.flops.mma_bf16,
          mmaTf32Flops: k.flops.mma_tf32,
          plainFlops: k.flops.fp32 + k.flops.fp16 + k.flops.fp64 + k.flops.sfu,
          fp32Flops: k.flops.fp32,
        },
      ]),
    ),
  };
}

/** One row: a case in a precision on a path. `runs` beyond the first repeat the shape (for what must not grow). */
function count(one, precision, path, { cc = '8.0', runs = 1 } = {}) {
  const { presets } = require('../dist/index.js');
  const config = configOf(presets, one);
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-counters-'));
  try {
    const raw = report({ one, precision, path, runs, cc }, folder);
    const sizes = { batch: one.batch, steps: one.steps, rows: one.rows, hidden: config.hidden };
    return {
      name: one.name,
      ...sizes,
      precision,
      path,
      capability: cc,
      ...metrics(raw, one, precision, config),
      api: raw.api,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Every case in both precisions, and in float32 on the unfused path. */
function countAll(cc = '8.0') {
  return cases.flatMap((one) => [
    count(one, 'bfloat16', 'fused', { cc }),
    count(one, 'float32', 'fused', { cc }),
    count(one, 'float32', 'unfused', { cc }),
  ]);
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const megabytes = (bytes) => String(Number((bytes / 1e6).toPrecision(3)));

/** The rows as a Markdown table. */
function table(rows) {
  const head = [
    ...['batch', 'path', 'launches', 'unique bytes (MB)', '÷ compulsory', 'sectors × 32 (MB)', '÷ bound'],
    ...['coalescing', 'conflict wavefronts', 'tensor share', 'of it padding', 'live rows'],
  ];
  const body = rows.map((row) => [
    `${row.name}, B=${row.batch}, L=${row.steps}`.replace(/ B=\d+(?=, B=)/, ''),
    `${row.path} ${row.precision}`,
    String(row.launches),
    megabytes(row.uniqueBytes),
    row.uniqueOverCompulsory.toFixed(2),
    megabytes(row.sectorBytes),
    row.path === 'fused' ? row.sectorsOverBound.toFixed(2) : '',
    percent(row.coalescing),
    percent(row.conflicts),
    percent(row.tensorShare),
    row.path === 'fused' ? percent(row.padding) : '',
    row.path === 'fused' ? percent(row.liveRows) : '',
  ]);
  return [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** cuda/README.md with the tables of these rows, whatever their order, between its marks. */
function documents(rows) {
  const readme = 'cuda/README.md';
  const paths = ['fused bfloat16', 'fused float32', 'unfused float32'];
  const at = (row) =>
    10 * cases.findIndex(({ name }) => name === row.name) + paths.indexOf(`${row.path} ${row.precision}`);
  const sorted = [...rows].sort((a, b) => at(a) - at(b));
  const put = (text, mark, content) =>
    text.replace(
      new RegExp(`(<!-- ${mark} -->\n)[^]*?(<!-- end -->)`),
      (_, from, to) => `${from}\n${content}\n\n${to}`,
    );
  const before = readFileSync(join(root, readme), 'utf8');
  return { readme, text: put(put(before, 'counters', table(sorted)), 'throughput', throughput.table(sorted)) };
}

module.exports = { cases, count, countAll, documents, library, table };

if (require.main === module) {
  const [option, value] = process.argv.slice(2);
  if (option === '--child') {
    child(JSON.parse(value)).catch((error) => {
      console.error(error);
      process.exitCode = 1;
    });
  } else if (!existsSync(library)) {
    console.error(`no simulated driver at ${library}: set HPFORMER_CUDA_LIBRARY`);
    process.exitCode = 1;
  } else {
    const rows = countAll();
    const { readme, text } = documents(rows);
    if (option === '--json') console.log(JSON.stringify(rows, null, 1));
    else if (option === '--write') writeFileSync(join(root, readme), text);
    else console.log(`${table(rows)}\n\n${throughput.table(rows)}`);
  }
}
