#!/usr/bin/env node
// Compiles every kernel for the given architectures and prints what ptxas says of it, as a table keyed by the nvcc version:
// registers, static shared memory, spills, stack, warps per multiprocessor that the registers allow.
//
//   node cuda/ptxas.cjs [sm_80 sm_90 …] > cuda/ptxas.json     (all kernels: several minutes)
//   node cuda/ptxas.cjs --check                               (compares with cuda/ptxas.json when nvcc's version is equal)
'use strict';
const { execFileSync, spawnSync } = require('node:child_process');
const { existsSync, mkdtempSync, readFileSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');

const widths = [64, 96, 128, 160, 192, 256]; // modules.h
const table = join(__dirname, 'ptxas.json');
const registersPerMultiprocessor = 65536;

function modules() {
  const fused = widths.flatMap((width) =>
    [0, 1].map((half) => ({
      source: 'fused.cu',
      flags: [`-DHPFORMER_HIDDEN=${width}`, `-DHPFORMER_BF16=${half}`],
    })),
  );
  return [{ source: 'common.cu', flags: [] }, ...fused];
}

/** `name: { registers, shared, spills, stack, warps }` of one module on one architecture. */
function compile(module, architecture, folder) {
  const code = architecture.replace('sm_', 'compute_');
  const source = join(__dirname, 'kernels', module.source);
  const flags = ['-std=c++17', '-O3', '-fmad=false', '-Xptxas', '-v', '-cubin', ...module.flags];
  const output = join(folder, 'kernels.cubin');
  const run = spawnSync('nvcc', [...flags, '-gencode', `arch=${code},code=${architecture}`, source, '-o', output], {
    encoding: 'utf8',
  });
  if (run.status !== 0) throw new Error(run.stderr);
  const kernels = {};
  for (const part of run.stderr.split(/Compiling entry function '/).slice(1)) {
    const name = part.slice(0, part.indexOf("'")).replace('hpformer_', '');
    const number = (pattern) => Number(part.match(pattern)?.[1] ?? 0);
    const registers = number(/Used (\d+) registers/);
    const perWarp = Math.ceil((registers * 32) / 256) * 256; // registers are given out in units of 256 a warp
    kernels[name] = {
      registers,
      shared: number(/(\d+) bytes smem/),
      spills: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
      stack: number(/(\d+) bytes stack frame/),
      warps: Math.min(64, Math.floor(registersPerMultiprocessor / perWarp)),
    };
  }
  return kernels;
}

function measure(architectures) {
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-ptxas-'));
  try {
    const nvcc = execFileSync('nvcc', ['--version'], { encoding: 'utf8' }).match(/V(\d+\.\d+\.\d+)/)[1];
    const kernels = {};
    for (const architecture of architectures) {
      kernels[architecture] = Object.assign({}, ...modules().map((module) => compile(module, architecture, folder)));
    }
    return { nvcc, kernels };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function check() {
  const kept = existsSync(table) ? JSON.parse(readFileSync(table, 'utf8')) : undefined;
  if (kept === undefined) throw new Error(`${table} is missing`);
  const now = measure(Object.keys(kept.kernels));
  if (now.nvcc !== kept.nvcc) {
    console.log(`not compared: the table is of nvcc ${kept.nvcc}, this is ${now.nvcc}`);
    return 0;
  }
  const differs = JSON.stringify(now) !== JSON.stringify(kept);
  console.log(
    differs ? 'the table is out of date: run node cuda/ptxas.cjs > cuda/ptxas.json' : 'the table is up to date',
  );
  return differs ? 1 : 0;
}

const options = process.argv.slice(2);
if (options[0] === '--check') {
  process.exitCode = check();
} else {
  const architectures = options.length > 0 ? options : ['sm_80', 'sm_90'];
  console.log(JSON.stringify(measure(architectures), null, 1));
}
