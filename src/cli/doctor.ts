import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { HPformerError } from '../errors';
import { devices } from '../model/devices';
import type { DeviceInfo } from '../model/types';
import type { NativeInfo } from '../native/addon';
import { addonPath, libc, loadAddon } from '../native/load';
import { type Command, write, writeJson } from './command';
import { formatPairs, formatTable } from './table';

const root = path.join(__dirname, '..', '..');

/** Version of this package. */
export function packageVersion(): string {
  return JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')).version;
}

/** Where the addon comes from: a build of this checkout or a shipped binary. */
function addonOrigin(): { path: string; origin: 'prebuilt' | 'built here' } | undefined {
  const file = addonPath();
  if (file === undefined) return undefined;
  const relative = path.relative(root, file);
  return { path: relative, origin: relative.startsWith('prebuilds') ? 'prebuilt' : 'built here' };
}

interface Findings {
  hpformer: string;
  node: string;
  nodeApi: string;
  platform: string;
  libc: string;
  cpu: string;
  cores: number;
  addon: { path: string; origin: string } | null;
  addonError: string | null;
  native: Omit<NativeInfo, 'devices'> | null;
  devices: DeviceInfo[];
  environment: Record<string, string>;
  problems: string[];
}

/** Values of the environment that the native side cannot use and does without; an empty one asks for nothing. */
function ignored({ isa, isaLevels, threads }: NativeInfo): string[] {
  const { HPFORMER_ISA: level, HPFORMER_THREADS: count } = process.env;
  const problems: string[] = [];
  if (level && level !== isa)
    problems.push(`HPFORMER_ISA: expected ${isaLevels.join(' or ')} on this machine, got "${level}"; ${isa} is used`);
  if (count && !(/^\d+$/.test(count) && Number(count) >= 1 && Number(count) <= 1024))
    problems.push(`HPFORMER_THREADS: expected a whole number from 1 to 1024, got "${count}"; ${threads} are used`);
  return problems;
}

/** Everything that `doctor` reports; never throws. */
export function examine(): Findings {
  let info: NativeInfo | undefined;
  let addonError: string | null = null;
  try {
    info = loadAddon().info();
  } catch (error) {
    addonError = error instanceof HPformerError ? error.message : String(error);
  }
  const found = devices();
  const version = packageVersion();
  const problems: string[] = [];
  if (addonError !== null) problems.push(addonError);
  if (info && info.version !== version) {
    problems.push(
      `addon: expected version ${version} (this package's), got ${info.version}; run: npm rebuild hpformer --foreground-scripts`,
    );
  }
  if (info) problems.push(...ignored(info));
  const { devices: _, ...native } = info ?? { devices: [] };
  return {
    hpformer: version,
    node: process.version,
    nodeApi: process.versions.napi ?? 'unknown',
    platform: `${process.platform}-${process.arch}`,
    libc: libc() || 'system',
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.availableParallelism(),
    addon: addonOrigin() ?? null,
    addonError,
    native: info ? (native as Omit<NativeInfo, 'devices'>) : null,
    devices: found,
    environment: Object.fromEntries(
      Object.entries(process.env).filter(
        (e): e is [string, string] => e[0].startsWith('HPFORMER_') && e[1] !== undefined,
      ),
    ),
    problems,
  };
}

/** The addon's failure is told once, below the table. */
function failure(device: DeviceInfo, addonError: string | null): string {
  return addonError !== null && device.reason === addonError ? 'the addon cannot be loaded' : device.reason;
}

/** Instruction set levels that the kernels are compiled for (binding/cpu/isa/isa.cmake), lowest first. */
export const compiledLevels: Readonly<Record<string, readonly string[]>> = {
  x64: ['baseline', 'avx2', 'avx512', 'avx512_vnni', 'amx'],
  arm64: ['neon'],
};

/** The level in use, what else could be, and what could not. */
function isaText({ isa, isaLevels }: Pick<NativeInfo, 'isa' | 'isaLevels'>): string {
  const others = isaLevels.filter((level) => level !== isa);
  const missing = (compiledLevels[process.arch] ?? []).filter((level) => !isaLevels.includes(level));
  return [
    isa,
    ...(others.length > 0 ? [`HPFORMER_ISA may name ${others.join(', ')}`] : []),
    ...(missing.length > 0 ? [`${missing.join(', ')}: not offered by this processor and kernel`] : []),
  ].join('; ');
}

function mebibytes(bytes: number): string {
  return bytes > 0 ? `${Math.round(bytes / 2 ** 20)} MiB` : '';
}

export const doctor: Command = {
  summary: 'Says what was found on this machine, and why the rest was not.',
  usage: '[options]',
  positionals: { least: 0, most: 0 },
  options: { json: { type: 'boolean', help: 'findings as JSON' } },
  notes: ['Exit code 1 when the package cannot work here, or not as the environment asks.'],
  async run(_, values, io) {
    const found = examine();
    const code = found.problems.length > 0 ? 1 : 0;
    if (values.json) {
      await writeJson(io.stdout, found);
      return code;
    }
    const { native, addon } = found;
    const pairs: [string, string][] = [
      ['hpformer', found.hpformer],
      ['node', `${found.node}, Node-API ${found.nodeApi}`],
      ['platform', `${found.platform}, ${found.libc}`],
      ['cpu', `${found.cpu}, ${found.cores} cores`],
      ['addon', addon ? `${addon.path} (${addon.origin})` : 'not found'],
    ];
    if (native) {
      pairs.push(
        ['isa', isaText(native)],
        ['threads', String(native.threads)],
        [
          'cuda kernels',
          native.cudaCompiled ? 'compiled in' : 'not compiled in (no nvcc at build time, or HPFORMER_CUDA=OFF)',
        ],
      );
    }
    for (const [name, value] of Object.entries(found.environment)) pairs.push([name, value]);
    const rows = found.devices.map((d) => [
      d.id,
      d.available ? 'yes' : 'no',
      d.name,
      d.level,
      mebibytes(d.memory),
      d.precisions.join(', '),
      failure(d, found.addonError),
    ]);
    await write(io.stdout, `${formatPairs(pairs)}\n`);
    await write(
      io.stdout,
      formatTable(['device', 'available', 'name', 'level', 'memory', 'precisions', 'reason'], rows),
    );
    for (const problem of found.problems) await write(io.stdout, `\nproblem: ${problem}\n`);
    return code;
  },
};
