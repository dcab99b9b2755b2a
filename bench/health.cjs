'use strict';
/**
 * The health pipeline on made-up stays: rate of each stage alone and end to end, and the peak memory of each process.
 *
 *   node bench/health.cjs [--count 100000] [--layers 8] [--workers 0,2] [--folder dir] [--keep]
 *
 * Stages run one after the other, each in a process of its own, through the command line as a user would. `--folder` with stays of an
 * earlier run (`--keep`) uses them again.
 */
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');

const root = path.join(__dirname, '..');
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '100000' },
    layers: { type: 'string', default: '8' },
    workers: { type: 'string', default: `0,${os.availableParallelism()}` },
    folder: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
});
const count = Number(values.count);
if (values.folder) fs.mkdirSync(values.folder, { recursive: true });
const folder = values.folder ?? fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-health-bench-'));
const at = (name) => path.join(folder, name);

/** Runs one command in a fresh process; seconds of wall clock, of CPU, and peak resident memory in MB. */
function stage(name, ...args) {
  const script = `
    const { main } = require(${JSON.stringify(path.join(root, 'dist/cli/main.js'))});
    main(${JSON.stringify(args)}, process).then((code) => {
      const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
      require('node:fs').writeFileSync(${JSON.stringify(at('usage.json'))},
        JSON.stringify({ maxRSS, cpu: (userCPUTime + systemCPUTime) / 1e6 }));
      process.exitCode = code;
    });`;
  const begun = process.hrtime.bigint();
  const done = spawnSync(process.execPath, ['-e', script], { stdio: ['ignore', 'ignore', 'inherit'] });
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  if (done.status !== 0) throw new Error(`${name} failed with ${done.status}`);
  const { maxRSS, cpu } = JSON.parse(fs.readFileSync(at('usage.json'), 'utf8'));
  const row = { stage: name, seconds, rate: count / seconds, cpu, peakMB: maxRSS / 1024 };
  console.log(
    `${name.padEnd(48)}${seconds.toFixed(1).padStart(8)} s${row.rate.toFixed(0).padStart(9)} stays/s${cpu.toFixed(1).padStart(9)} s CPU${row.peakMB.toFixed(0).padStart(7)} MB peak`,
  );
  return row;
}

async function model() {
  const { HPformer, presets } = require(path.join(root, 'dist/index.js'));
  const made = await HPformer.create(presets.mortality({ layers: Number(values.layers) }), { seed: 1, device: 'cpu' });
  await made.save(at('model.safetensors'));
  made.dispose();
}

void (async () => {
  console.log(
    `${count} stays of 48 h, mortality model of ${values.layers} layers, ${os.cpus()[0].model}, ${os.availableParallelism()} cores, load ${os.loadavg()[0].toFixed(1)}`,
  );
  await model();
  if (!fs.existsSync(at('stays'))) {
    const size = ['--count', String(count), '--out', at('stays')];
    stage('make stays (not part of the pipeline)', 'prepare', 'synthetic', ...size);
  }
  const fitted = ['--normalizer', at('normalizer.json')];
  const threads = values.workers.split(',');
  for (const workers of threads) {
    const out = ['--out', at('normalizer.json'), '--workers', workers];
    stage(`fit the normaliser, ${workers} workers`, 'prepare', 'normalizer', at('stays'), ...out);
  }
  const task = ['--task', 'in-hospital-mortality'];
  stage('bundle', 'prepare', 'bundle', at('model.safetensors'), ...task, ...fitted, '--out', at('bundle.safetensors'));
  for (const workers of threads) {
    const out = ['--out', at('arrays'), '--workers', workers];
    stage(`prepare: CSV to arrays, ${workers} workers`, 'prepare', 'arrays', at('stays'), ...fitted, ...out);
  }
  const bundle = at('bundle.safetensors');
  stage('predict: arrays to scores (model alone)', 'predict', bundle, at('arrays'), '--out', at('a.csv'));
  let same = true;
  for (const workers of threads) {
    const out = ['--out', at('b.csv'), '--workers', workers];
    stage(`predict: CSV to scores (end to end), ${workers} workers`, 'predict', bundle, at('stays'), ...out);
    same &&= fs.readFileSync(at('a.csv')).equals(fs.readFileSync(at('b.csv')));
  }
  console.log(`scores of all ways: ${same ? 'the same bytes' : 'DIFFERENT'}`);
  if (!values.keep) fs.rmSync(folder, { recursive: true, force: true });
  if (!same) process.exitCode = 1;
})();
