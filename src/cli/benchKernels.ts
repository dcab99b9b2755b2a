/**
 * `hpformer bench kernels`. Three families in one table: the kernels of the public API (single steps and whole stages), the fused engine
 * with each exact rewrite switched off in turn, and in a checkout the C++ kernels of every ISA level against the ceilings of the same run.
 */
import { execFileSync } from 'node:child_process';
import { initialWeights } from '../checkpoint/init';
import { serializeCheckpoint } from '../checkpoint/save';
import { HPformerError } from '../errors';
import { devices } from '../model/devices';
import { HPformer } from '../model/hpformer';
import { rewriteNames } from '../model/types';
import { loadAddon } from '../native/load';
import { inCheckout, runInCheckout } from './benchCheckout';
import { benchedConfig, benchedFeatures, type Shape, stageCalls, stageContestants, stageRows } from './benchStages';
import { type BenchRow, bounds, type Contestant, fresh, interleaved, outputsError } from './benchTiming';
import { UsageError } from './command';

/** What `bench kernels` was asked for. */
export interface KernelOptions {
  /** Rows whose names contain one of these; none: all. */
  names: readonly string[];
  quick: boolean;
  threads?: number | undefined;
  /** Of the fused model; the kernels of `kernels.*` are float32. */
  precision?: 'float32' | 'bfloat16' | undefined;
  /** Only this device; `auto` or absent: the processor and every CUDA device. */
  device?: string | undefined;
  shape: Shape;
}

/** Whether a row was asked for: by a part of its name, where `fused` is no part of `unfused`. */
export function wanted(names: readonly string[], name: string): boolean {
  const holds = (part: string) => (part.startsWith('un') ? name : name.replace(/^unfused /, '')).includes(part);
  return names.length === 0 || names.some(holds);
}

const modelName = (off: string | undefined) => (off ? `fused model without ${off}` : 'fused model');

/** The fused engine on a whole model, all rewrites on and each one off, on one device. */
async function fused(
  device: 'cpu' | `cuda:${number}`,
  { names, threads, precision, shape }: KernelOptions,
): Promise<{ contestants: Contestant[]; dispose: () => void }> {
  const models: HPformer[] = [];
  const contestants: Contestant[] = [];
  const dispose = () => {
    for (const model of models) model.dispose();
  };
  const variants = [undefined, ...rewriteNames].filter((off) => wanted(names, modelName(off)));
  if (variants.length === 0) return { contestants, dispose };
  const config = benchedConfig(shape);
  const checkpoint = serializeCheckpoint(config, initialWeights(config, 2023));
  const feeds = { features: benchedFeatures(shape) };
  const reference = await HPformer.load(checkpoint, { device: 'reference' });
  const { logits, probabilities } = await reference.run(feeds);
  const expected = { logits: logits.data as Float64Array, probabilities: probabilities!.data as Float64Array };
  reference.dispose();
  for (const off of variants) {
    const model = await HPformer.load(checkpoint, {
      device,
      ...(threads && { threads }),
      ...(precision && { precision }),
      ...(off && { rewrites: { [off]: false } }),
    });
    models.push(model);
    const error = outputsError(await model.run(feeds), expected);
    const place =
      device === 'cpu' ? { device, isa: cpuLevel(), threads: threads ?? loadAddon().info().threads } : { device };
    const { flops, bytes } = model.plan(shape).toJSON();
    const row = {
      name: modelName(off),
      ...place,
      flops,
      bytes,
      precision: precision ?? 'float32',
      checked: error <= bounds[precision ?? 'float32'],
      error,
      ...shape,
    };
    contestants.push({ row, call: fresh((input) => model.run(input), feeds) });
  }
  return { contestants, dispose };
}

/** A row of bench/native. */
interface NativeRow {
  kernel: string;
  isa: string;
  ns: number;
  low: number;
  high: number;
  gflops: number;
  /** Of the level's peak; null where there is none to compare with. */
  percent: number | null;
  gbs: number;
  percentCopy: number;
  flops: number;
  bytes: number;
  checked: boolean;
  error: number;
}

const cpuLevel = () => loadAddon().info().isa;

/** CUDA devices to time on, or why there are none. A forced ISA level is about the processor. */
export function cudaDevices({ device }: Pick<KernelOptions, 'device'>): {
  ids: `cuda:${number}`[];
  reason?: string;
} {
  if (device === 'cpu') return { ids: [], reason: 'only the processor was asked for' };
  if (process.env.HPFORMER_ISA !== undefined)
    return { ids: [], reason: 'HPFORMER_ISA asks for one level of the processor' };
  const all = devices().filter(({ kind }) => kind === 'cuda');
  const ids = all.filter(({ available }) => available).map(({ id }) => id as `cuda:${number}`);
  if (ids.length === 0) return { ids, reason: all[0]?.reason ?? 'no CUDA device' };
  return { ids: device?.startsWith('cuda:') && device !== 'cuda:all' ? ids.filter((id) => id === device) : ids };
}

const onProcessor = ({ device }: KernelOptions) => device === undefined || device === 'auto' || device === 'cpu';

/** Kernels and the fused engine on this process's ISA level and on CUDA devices; rows by name. */
export async function engineRows(options: KernelOptions): Promise<BenchRow[]> {
  const { names, quick, shape } = options;
  const { ids } = cudaDevices(options);
  const cpu = onProcessor(options);
  // Models first: while one is open, its CUDA device stays open for the kernels beside it.
  const engines = cpu ? [await fused('cpu', options)] : [];
  for (const id of ids) engines.push(await fused(id, options));
  const contestants = engines.flatMap((engine) => engine.contestants);
  if (stageRows.some((name) => wanted(names, name))) {
    const calls = await stageCalls(shape);
    const places = [...(cpu ? [{ isa: cpuLevel() }] : []), ...ids.map((device) => ({ device }))];
    const stages = places.flatMap((place) => stageContestants(calls, shape, place, (name) => wanted(names, name)));
    contestants.unshift(...stages);
  }
  const rows = await interleaved(contestants, quick ? 2 : 5, quick ? 10 : 60);
  for (const engine of engines) engine.dispose();
  return rows;
}

/** The same on a lower ISA level, in a process of its own: the level is chosen once in each. */
function rowsAtLevel(level: string, options: KernelOptions): BenchRow[] {
  const script = `require(${JSON.stringify(__filename)}).engineRows(${JSON.stringify(options)})
    .then((rows) => { console.log(JSON.stringify(rows)); process.exit(0); });`;
  const env = { ...process.env, HPFORMER_ISA: level };
  return JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', env })) as BenchRow[];
}

/** Families of C++ kernels in bench/native: a name that touches none of them needs no native build. */
export const nativeFamilies = [
  ...['native', 'gemm', 'matvec', 'layernorm', 'rmsnorm'],
  ...['keyScores', 'scanBlock', 'keyAttentionLanes'],
];

const touchesNative = (names: readonly string[]) =>
  names.length === 0 ||
  names.some((part) => nativeFamilies.some((f) => `native ${f}`.includes(part) || part.includes(f)));

/** The C++ kernels of bench/native, in a checkout. */
async function nativeRows({ names, quick }: KernelOptions): Promise<BenchRow[]> {
  const rounds = quick ? 5 : 15;
  // An empty name is in every name.
  const parts = names.length === 0 ? [''] : names.map((name) => name.replace(/^native ?/, ''));
  const printed = await runInCheckout(['native', 'kernels', quick ? '1' : '3', String(rounds), ...parts]);
  const { rows } = JSON.parse(printed) as { rows: NativeRow[] };
  return rows.flatMap(({ kernel, ns, low, high, percent, ...rest }) => {
    const name = `native ${kernel}`;
    const measured = { ms: ns / 1e6, low: low / 1e6, high: high / 1e6, repetitions: rounds };
    return wanted(names, name)
      ? [{ ...rest, ...(percent !== null && { percent }), name, device: 'cpu', ...measured }]
      : [];
  });
}

/**
 * All rows whose names contain one of `names` (all, when there are none): kernels and engine on every ISA level of this machine and on its
 * CUDA devices, and in a checkout (`native`) the C++ kernels. `HPFORMER_ISA` leaves only that level.
 */
export async function benchKernels(options: KernelOptions, native = inCheckout()): Promise<BenchRow[]> {
  const { device } = options;
  if (device === 'reference') throw new UsageError('kernels: expected --device auto, cpu or cuda:<n>, got reference');
  const { ids, reason } = cudaDevices(options);
  if (device?.startsWith('cuda') && ids.length === 0) {
    throw new HPformerError(
      'ERR_HPFORMER_DEVICE',
      `kernels: expected a device ${device}: ${reason ?? 'there is none'}`,
    );
  }
  const rows = await engineRows(options);
  const { isa, isaLevels } = loadAddon().info();
  if (rows.some((row) => row.isa === isa) && process.env.HPFORMER_ISA === undefined) {
    for (const level of isaLevels.filter((other) => other !== isa)) rows.push(...rowsAtLevel(level, options));
  }
  return native && onProcessor(options) && touchesNative(options.names)
    ? [...rows, ...(await nativeRows(options))]
    : rows;
}
