#!/usr/bin/env node
// What ptxas says of every kernel on every architecture, as a table keyed by the nvcc version: registers, static shared
// memory, spills, stack, warps per multiprocessor that the registers allow. Works on the PTX that a build with tests has
// kept, so nothing but ptxas runs; what it said of a file is remembered in the build folder.
//
//   node cuda/ptxas.cjs [sm_80 sm_90 …] > cuda/ptxas.json     the table, for all architectures unless some are named
//   node cuda/ptxas.cjs --check [sm_80 …]                     spills and warps, whatever the nvcc; compares with
//                                                             cuda/ptxas.json where nvcc's version is equal
//
// HPFORMER_BUILD names the build folder (default: build/).
'use strict';
const { execFile, execFileSync } = require('node:child_process');
const { createHash } = require('node:crypto');
const { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { promisify } = require('node:util');

/** Architectures of a release and the PTX that each is made from (cuda.cmake). */
const virtual = { sm_80: 'compute_80', sm_90: 'compute_90', sm_100: 'compute_90' };
const table = join(__dirname, 'ptxas.json');
const registersPerMultiprocessor = 65536;
const fewestWarps = 8;

const buildFolder = () => process.env.HPFORMER_BUILD ?? join(__dirname, '..', 'build');

/** The kept PTX: `{ module, file }` for one virtual architecture. */
function kept(build, code) {
  const folder = join(build, 'ptx');
  const modules = existsSync(folder) ? readdirSync(folder, { withFileTypes: true }) : [];
  const found = modules
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => {
      const file = readdirSync(join(folder, name)).find((each) => each.endsWith(`${code}.ptx`));
      return file === undefined ? undefined : { module: name, file: join(folder, name, file) };
    })
    .filter((each) => each !== undefined);
  if (found.length === 0) throw new Error(`no PTX of ${code} in ${folder}: build with HPFORMER_TESTS=ON and nvcc`);
  return found;
}

function parse(log) {
  const kernels = {};
  for (const part of log.split(/Compiling entry function '/).slice(1)) {
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

const run = promisify(execFile);

/** `{ nvcc, kernels: { sm_80: { name: { registers, … } } } }`, two files at a time. */
async function measure(architectures, build = buildFolder()) {
  const nvcc = execFileSync('nvcc', ['--version'], { encoding: 'utf8' }).match(/V(\d+\.\d+\.\d+)/)[1];
  const jobs = architectures.flatMap((architecture) => {
    if (!(architecture in virtual)) throw new Error(`expected ${Object.keys(virtual).join(', ')}, got ${architecture}`);
    return kept(build, virtual[architecture]).map((module) => ({ architecture, ...module }));
  });
  const memory = join(build, 'ptx', 'ptxas.json');
  const known = existsSync(memory) ? JSON.parse(readFileSync(memory, 'utf8')) : {};
  const now = {};
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-ptxas-'));
  const todo = [...jobs.keys()];
  const worker = async () => {
    for (let at = todo.shift(); at !== undefined; at = todo.shift()) {
      const { architecture, file } = jobs[at];
      const key = createHash('sha256').update(`${nvcc} ${architecture} `).update(readFileSync(file)).digest('hex');
      if (known[key] === undefined) {
        const flags = ['-v', '-m64', '--fmad', 'false', `-arch=${architecture}`, '-o', join(folder, `${at}.cubin`)];
        const { stdout, stderr } = await run('ptxas', [...flags, file], { maxBuffer: 1 << 26 });
        known[key] = parse(stdout + stderr);
      }
      now[key] = known[key];
      jobs[at].kernels = known[key];
    }
  };
  try {
    await Promise.all([worker(), worker()]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  writeFileSync(memory, JSON.stringify(now));
  const sorted = (entries) => Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  const kernels = Object.fromEntries(
    architectures.map((architecture) => [
      architecture,
      sorted(jobs.filter((job) => job.architecture === architecture).flatMap((job) => Object.entries(job.kernels))),
    ]),
  );
  return { nvcc, kernels };
}

/** What is wrong, one line each: a kernel that spills or fills too few warps, and what the table of the same nvcc says otherwise. */
function judge(now, wanted) {
  const lines = [];
  const compared = now.nvcc === wanted.nvcc;
  for (const [architecture, kernels] of Object.entries(now.kernels)) {
    const before = wanted.kernels[architecture] ?? {};
    for (const name of new Set([...Object.keys(before), ...Object.keys(kernels)])) {
      const [a, b] = [JSON.stringify(before[name]), JSON.stringify(kernels[name])];
      if (b === undefined || before[name] === undefined || (compared && a !== b)) {
        lines.push(`${name} on ${architecture}: ${a} in cuda/ptxas.json, ${b} now`);
      }
      if (kernels[name]?.spills > 0) lines.push(`${name} on ${architecture} spills`);
      if (kernels[name]?.warps < fewestWarps) lines.push(`${name} on ${architecture}: ${kernels[name].warps} warps`);
    }
  }
  return { compared, nvcc: now.nvcc, wanted: wanted.nvcc, lines };
}

async function check(architectures) {
  return judge(await measure(architectures), JSON.parse(readFileSync(table, 'utf8')));
}

module.exports = { check, judge, measure, table, virtual };

async function main([option, ...rest]) {
  if (option === '--check') {
    const { compared, nvcc, wanted, lines } = await check(rest.length > 0 ? rest : Object.keys(virtual));
    if (lines.length > 0) console.log(lines.join('\n'));
    else if (compared) console.log('no spills, enough warps, cuda/ptxas.json is up to date');
    else console.log(`no spills, enough warps; not compared: the table is of nvcc ${wanted}, this is ${nvcc}`);
    process.exitCode = lines.length === 0 ? 0 : 1;
  } else {
    const architectures = option === undefined ? Object.keys(virtual) : [option, ...rest];
    console.log(JSON.stringify(await measure(architectures), null, 2));
  }
}
if (require.main === module) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
