/**
 * `hpformer bench kernels`. Three families in one table: the unfused kernels of the public API, the fused engine with each exact
 * rewrite switched off in turn, and in a checkout the C++ kernels of every ISA level against the ceilings of the same run.
 */
import { execFileSync } from 'node:child_process';
import { initialWeights } from '../checkpoint/init';
import { serializeCheckpoint } from '../checkpoint/save';
import { presets } from '../config/presets';
import { segmentsOf } from '../config/segments';
import { devices } from '../model/devices';
import { HPformer } from '../model/hpformer';
import { kernels } from '../model/kernels';
import { rewriteNames } from '../model/types';
import { loadAddon } from '../native/load';
import { Tensor } from '../tensor/tensor';
import { inCheckout, runInCheckout } from './benchCheckout';
import { type BenchRow, type Contestant, errorOf, interleaved, uniform } from './benchTiming';

const batch = 4;
const steps = 504;
/** float32 results against the float64 reference. */
const bound = 2e-5;

/** Numbers a kernel touches once: inputs and outputs. */
const bytesOf = (tensors: readonly Tensor[]) => tensors.reduce((sum, { data }) => sum + data.byteLength, 0);

/** The unfused kernels on the decompensation model's stages, each checked against the traced reference. */
async function unfused(): Promise<Contestant[]> {
  const config = presets.decompensation();
  const { hidden, heads } = config;
  const weights = initialWeights(config, 2023);
  const features = new Tensor('float32', uniform(batch * steps * 76), [batch, steps, 76]);
  const reference = await HPformer.load(serializeCheckpoint(config, weights), { device: 'reference' });
  const trace: Record<string, Tensor> = await reference.trace({ features });
  reference.dispose();
  const single = (tensor: Tensor, dims: readonly number[] = tensor.dims) =>
    new Tensor('float32', Float32Array.from(tensor.data as Float64Array), [...dims]);
  const w = (name: string) => {
    const { data, dims } = weights.get(name)!;
    return new Tensor('float32', Float32Array.from(data), [...dims]);
  };
  const { count, length } = segmentsOf(config, steps);
  const rows = [batch * steps, hidden] as const;
  const embedded = single(trace.embedded!);
  const keys = single(trace.keys!);
  const fusion = { weight: w('tdhp.fusion.weight'), bias: w('tdhp.fusion.bias') };
  const norm = (i: 1 | 2) => ({
    [`norm${i}Weight`]: w(`layers.0.norm${i}.weight`),
    [`norm${i}Bias`]: w(`layers.0.norm${i}.bias`),
  });
  const cells = batch * steps;
  const spread = cells * count * hidden;
  type Call = [
    inputs: Record<string, Tensor>,
    options: Record<string, number | string | boolean>,
    flops: number,
    stage?: string,
  ];
  const calls: Record<string, Call> = {
    embed: [
      { x: features, weight: w('embedding.weight'), bias: w('embedding.bias') },
      { kind: 'features', positions: 'interleaved' },
      2 * cells * 76 * hidden,
      'embedded',
    ],
    segmentPool: [{ x: embedded }, { segments: count, length, pooling: 'mean' }, cells * hidden, 'segmentPool'],
    extraSegmentAttention: [{ x: single(trace.segmentPool!) }, {}, 4 * batch * count * count * hidden, 'extraSegment'],
    intraSegmentAttention: [
      { extra: single(trace.extraSegment!), x: embedded },
      { length },
      4 * cells * hidden,
      'intraSegment',
    ],
    fusion: [
      { extra: single(trace.extraSegment!), intra: single(trace.intraSegment!), ...fusion },
      {},
      4 * batch * count * hidden * hidden,
      'keys',
    ],
    tdhp: [
      { x: embedded, ...fusion },
      { segments: count, length, pooling: 'mean' },
      5 * cells * hidden + 4 * batch * count * (count + hidden) * hidden,
      'keys',
    ],
    layer: [
      {
        x: embedded,
        keys,
        output: w('layers.0.output.weight'),
        feedForward: w('layers.0.feedForward.weight'),
        feedForwardBias: w('layers.0.feedForward.bias'),
        ...norm(1),
        ...norm(2),
      },
      { heads, norm: 'layernorm', activation: 'relu' },
      4 * spread + 4 * cells * hidden * hidden,
      'layer.0',
    ],
    head: [
      { x: single(trace.encoded!, rows), weight: w('head.output.weight'), bias: w('head.output.bias') },
      { link: 'sigmoid' },
      2 * cells * hidden,
      'logits',
    ],
    // These three have no traced stage of their own: their inputs and formulas give the expectation (below).
    keyAttention: [{ x: embedded, keys }, { heads }, 4 * spread],
    norm: [
      { x: single(embedded, rows), weight: w('layers.0.norm1.weight'), bias: w('layers.0.norm1.bias') },
      { norm: 'layernorm' },
      7 * cells * hidden,
    ],
    dense: [
      { x: single(embedded, rows), weight: w('layers.0.feedForward.weight'), bias: w('layers.0.feedForward.bias') },
      { activation: 'relu' },
      2 * cells * hidden * hidden,
    ],
  };
  return Object.entries(calls).map(([name, [inputs, options, flops, stage]]) => {
    const kernel = kernels[name as keyof typeof kernels];
    const first = kernel(inputs, options);
    const result = Object.values(first)[0]!;
    const expected = stage ? trace[stage]!.data : plain(name, inputs, heads);
    const error = errorOf(result.data as Float32Array, expected as Float64Array);
    const bytes = bytesOf([...Object.values(inputs), ...Object.values(first)]);
    return {
      row: {
        name: `unfused ${name}`,
        device: 'cpu',
        isa: cpuLevel(),
        checked: error <= bound,
        error,
        flops,
        bytes,
        steps,
        batch,
      },
      call: () => kernel(inputs, options),
    };
  });
}

/** keyAttention, norm and dense as their formulas stand. */
function plain(name: string, inputs: Record<string, Tensor>, heads: number): Float64Array {
  const x = inputs.x!;
  const hidden = x.dims.at(-1)!;
  const data = x.data as Float32Array;
  const out = new Float64Array(data.length);
  const count = data.length / hidden;
  const keys = inputs.keys?.data as Float32Array;
  const weight = inputs.weight?.data as Float32Array;
  const bias = inputs.bias?.data as Float32Array;
  for (let r = 0; r < count; r++) {
    const row = data.subarray(r * hidden, (r + 1) * hidden);
    if (name === 'norm') {
      const mean = row.reduce((a, b) => a + b, 0) / hidden;
      const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / hidden;
      for (let c = 0; c < hidden; c++)
        out[r * hidden + c] = ((row[c]! - mean) / Math.sqrt(variance + 1e-5)) * weight[c]! + bias[c]!;
    } else if (name === 'dense') {
      for (let c = 0; c < hidden; c++) {
        let sum = bias[c]!;
        for (let k = 0; k < hidden; k++) sum += row[k]! * weight[c * hidden + k]!;
        out[r * hidden + c] = Math.max(0, sum);
      }
    } else {
      const segments = inputs.keys!.dims[1]!;
      const width = hidden / heads;
      const base = Math.floor(r / x.dims[1]!) * segments * hidden;
      for (let g = 0; g < heads; g++) {
        const scores = Array.from({ length: segments }, (_, s) => {
          let dot = 0;
          for (let c = g * width; c < (g + 1) * width; c++) dot += row[c]! * keys[base + s * hidden + c]!;
          return Math.exp(dot / Math.sqrt(width));
        });
        const total = scores.reduce((a, b) => a + b, 0);
        for (let c = g * width; c < (g + 1) * width; c++)
          for (let s = 0; s < segments; s++)
            out[r * hidden + c]! += (scores[s]! / total) * keys[base + s * hidden + c]!;
      }
    }
  }
  return out;
}

/** The fused engine on a whole model, all rewrites on and each one off, on one device. */
async function fused(
  device: 'cpu' | `cuda:${number}`,
  threads: number | undefined,
): Promise<{ contestants: Contestant[]; dispose: () => void }> {
  const config = presets.decompensation();
  const bytes = serializeCheckpoint(config, initialWeights(config, 2023));
  const feeds = { features: new Tensor('float32', uniform(batch * steps * 76), [batch, steps, 76]) };
  const reference = await HPformer.load(bytes, { device: 'reference' });
  const expected = (await reference.run(feeds)).logits.data as Float64Array;
  reference.dispose();
  const models: HPformer[] = [];
  const contestants: Contestant[] = [];
  for (const off of [undefined, ...rewriteNames]) {
    const options = { device, ...(threads && { threads }), ...(off && { rewrites: { [off]: false } }) };
    const model = await HPformer.load(bytes, options);
    models.push(model);
    const error = errorOf((await model.run(feeds)).logits.data as Float32Array, expected);
    const name = off ? `fused model without ${off}` : 'fused model';
    const place = device === 'cpu' ? { device, isa: cpuLevel() } : { device };
    const row = { name, ...place, checked: error <= bound, error, steps, batch };
    contestants.push({ row, call: () => model.run(feeds) });
  }
  return {
    contestants,
    dispose: () => {
      for (const model of models) model.dispose();
    },
  };
}

/** A row of bench/native. */
interface NativeRow {
  kernel: string;
  isa: string;
  ns: number;
  low: number;
  high: number;
  gflops: number;
  percent: number;
  gbs: number;
  flops: number;
  bytes: number;
  checked: boolean;
  error: number;
}

/** Families of C++ kernels in bench/native; a name that touches none of them needs no native build. */
const nativeFamilies = [
  'native',
  'gemm',
  'matvec',
  'layernorm',
  'rmsnorm',
  'keyScores',
  'scanBlock',
  'keyAttentionLanes',
];

const cpuLevel = () => loadAddon().info().isa;

/** Unfused kernels and the fused engine on this process's ISA level and, for the engine, on CUDA devices; rows by name. */
export async function engineRows(names: readonly string[], quick: boolean, threads?: number): Promise<BenchRow[]> {
  const engines = [await fused('cpu', threads)];
  // A forced level is about the processor.
  for (const { id, kind, available } of process.env.HPFORMER_ISA === undefined ? devices() : []) {
    if (kind === 'cuda' && available) engines.push(await fused(id as `cuda:${number}`, threads));
  }
  const contestants = [...(await unfused()), ...engines.flatMap((engine) => engine.contestants)];
  const rows = await interleaved(
    contestants.filter(({ row }) => wanted(names, row.name)),
    quick ? 2 : 5,
    quick ? 10 : 60,
  );
  for (const engine of engines) engine.dispose();
  return rows;
}

const wanted = (names: readonly string[], name: string) =>
  names.length === 0 || names.some((part) => name.includes(part));

/** The same on a lower ISA level, in a process of its own: the level is chosen once in each. */
function rowsAtLevel(level: string, names: readonly string[], quick: boolean, threads?: number): BenchRow[] {
  const call = [names, quick, threads ?? null].map((x) => JSON.stringify(x)).join(', ');
  const script = `require(${JSON.stringify(__filename)}).engineRows(${call.replace(/, null$/, '')})
    .then((rows) => { console.log(JSON.stringify(rows)); process.exit(0); });`;
  const env = { ...process.env, HPFORMER_ISA: level };
  return JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', env })) as BenchRow[];
}

/**
 * All rows whose names contain one of `names` (all, when there are none): kernels and engine on every ISA level of this machine and on its
 * CUDA devices, and in a checkout the C++ kernels. `HPFORMER_ISA` leaves only that level.
 */
export async function benchKernels(names: readonly string[], quick: boolean, threads?: number): Promise<BenchRow[]> {
  const rows = await engineRows(names, quick, threads);
  if (rows.length > 0 && process.env.HPFORMER_ISA === undefined) {
    const { isa, isaLevels } = loadAddon().info();
    for (const level of isaLevels.filter((other) => other !== isa)) {
      rows.push(...rowsAtLevel(level, names, quick, threads));
    }
  }
  const concerned =
    names.length === 0 || names.some((part) => nativeFamilies.some((f) => f.includes(part) || part.includes(f)));
  if (!inCheckout() || !concerned) return rows;
  const { rows: native } = JSON.parse(
    await runInCheckout(['native', 'kernels', quick ? '1' : '3', quick ? '5' : '15']),
  ) as {
    rows: NativeRow[];
  };
  for (const { kernel, ns, low, high, ...rest } of native) {
    const name = `native ${kernel}`;
    if (wanted(names, name))
      rows.push({ ...rest, name, ms: ns / 1e6, low: low / 1e6, high: high / 1e6, repetitions: quick ? 5 : 15 });
  }
  return rows;
}
