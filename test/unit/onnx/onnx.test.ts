/** The ONNX writer: every fixture of the published code through every graph form, read back and run by an interpreter of our own. */
import { assemble, nameTensors } from '../../../src/checkpoint/assemble';
import { exportOnnx, type OnnxOptions, onnxVariants } from '../../../src/checkpoint/onnx';
import { sinusoidalTable } from '../../../src/checkpoint/onnx/tables';
import { readSafetensors } from '../../../src/checkpoint/safetensors';
import { bytesOf, cases, configOf, errorOf, fixture, valuesOf } from '../checkpoint/support';
import { decode, run, type Value } from './interpreter';

function load(name: string) {
  const file = readSafetensors(bytesOf(`${name}.safetensors`)).tensors;
  const { state, metadata } = fixture(name);
  const config = configOf(metadata);
  const weights = assemble(config, nameTensors({ tensors: state, metadata: {} }, name), name);
  const tensor = (key: string): Value => {
    const stored = file.get(key)!;
    const bytes = stored.bytes.slice().buffer;
    const data = stored.type === 'I64' ? Array.from(new BigInt64Array(bytes), Number) : valuesOf(stored);
    return { dims: [...stored.dims], data: Float64Array.from(data) };
  };
  return { config, weights: Object.fromEntries([...weights].map(([key, { data }]) => [key, data])), file, tensor };
}

/** Feeds under the graph's names, and how the readout reads. */
function feedsOf(
  name: string,
  loaded: ReturnType<typeof load>,
): { feeds: Record<string, Value>; options: Partial<OnnxOptions> } {
  const { config, file, tensor } = loaded;
  if (file.has('input.x')) {
    const features = tensor('input.x');
    if (config.readout === 'steps') return { feeds: { features }, options: {} };
    const mask = tensor('input.cur_mask');
    if (name.includes('curmask')) return { feeds: { features, readoutWeights: mask }, options: { step: 'weights' } };
    const [batch, steps] = mask.dims as [number, number];
    const step = Float64Array.from({ length: batch }, (_, i) =>
      mask.data.subarray(i * steps, (i + 1) * steps).indexOf(1),
    );
    return { feeds: { features, step: { dims: [batch], data: step } }, options: { step: 'input' } };
  }
  const kind = config.embedding.kind === 'tokens' ? 'tokens' : 'values';
  const feeds: Record<string, Value> = { [kind]: tensor('input.src_tokens'), lengths: tensor('input.src_lengths') };
  if (config.sequences === 2) {
    feeds[`${kind}2`] = tensor('input.src1_tokens');
    feeds.lengths2 = tensor('input.src1_lengths');
  }
  return { feeds, options: { lengths: 'input' } };
}

const floats = onnxVariants.filter((variant) => !variant.endsWith('8'));

// The largest fixture costs the interpreter seconds per form; onnxruntime runs it in bench/.
describe.each(cases.filter((name) => name !== 'health_dp_504'))('%s', (name) => {
  test('every form, fixed and dynamic, gives the published logits', () => {
    const loaded = load(name);
    const { config, weights, tensor } = loaded;
    const { feeds, options } = feedsOf(name, loaded);
    const [first, second] = ['', '2'].map(
      (s) => (feeds[`features${s}`] ?? feeds[`tokens${s}`] ?? feeds[`values${s}`])?.dims[1],
    );
    const expected = tensor('expected64.logits');
    const steps2 = second === undefined ? {} : { steps2: second };
    const forms: OnnxOptions[] = floats.flatMap((variant) => [
      { ...options, variant, steps: first!, ...steps2 },
      { ...options, variant, steps: 'dynamic', maximumSteps: Math.max(first!, second ?? 0) },
    ]);
    forms.push({ ...options, contrib: true, steps: first!, ...steps2 });
    for (const form of forms) {
      const { logits } = run(decode(exportOnnx(config, weights, form)), feeds);
      expect(logits!.dims).toEqual(expected.dims);
      const worst = Math.max(...logits!.data.map((value, i) => Math.abs(value - expected.data[i]!)));
      // Double arithmetic over float32 weights and tables.
      expect(worst).toBeLessThan(3e-6);
    }
  });
});

describe('health_ihmp_small', () => {
  const name = 'health_ihmp_small';

  test('8-bit weights stay near', () => {
    const loaded = load(name);
    const { feeds, options } = feedsOf(name, loaded);
    const expected = loaded.tensor('expected64.logits');
    for (const variant of ['bdiag8', 'fold8'] as const) {
      const model = decode(exportOnnx(loaded.config, loaded.weights, { ...options, variant, steps: 12 }));
      expect(model.opsets.get('com.microsoft')).toBe(1);
      const { logits } = run(model, feeds);
      const worst = Math.max(...logits!.data.map((value, i) => Math.abs(value - expected.data[i]!)));
      expect(worst).toBeLessThan(0.1);
      expect(worst).toBeGreaterThan(1e-6);
    }
  });

  test('a one-step readout is sliced before the layers, or written out as published', () => {
    const { config, weights } = load(name);
    const rows = (options: OnnxOptions) => {
      const model = decode(exportOnnx(config, weights, options));
      return model.nodes.filter((node) => node.type === 'OneHot').length;
    };
    expect(rows({ steps: 12, variant: 'written' })).toBe(1);
    expect(rows({ steps: 12 })).toBe(0);
  });

  test('standard operators only, and the configuration as metadata', () => {
    const { config, weights } = load(name);
    const model = decode(exportOnnx(config, weights, { steps: 'dynamic' }));
    expect([...model.opsets]).toEqual([['', 17]]);
    expect(model.nodes.every((node) => node.domain === '')).toBe(true);
    expect(JSON.parse(model.metadata.get('hpformer.config')!)).toEqual(config);
    expect(model.inputs).toEqual(['features', 'step']);
    expect(model.outputs).toEqual(['logits', 'probabilities']);
  });

  test('keys and pooled on request', () => {
    const loaded = load(name);
    const { feeds, options } = feedsOf(name, loaded);
    const graph = exportOnnx(loaded.config, loaded.weights, { ...options, steps: 12, outputs: ['keys', 'pooled'] });
    const { keys, pooled } = run(decode(graph), feeds);
    for (const [got, key] of [
      [keys, 'expected64.k_comp'],
      [pooled, 'expected64.cur_output'],
    ] as const) {
      const expected = loaded.tensor(key);
      expect(got!.dims).toEqual(expected.dims);
      expect(Math.max(...got!.data.map((value, i) => Math.abs(value - expected.data[i]!)))).toBeLessThan(3e-6);
    }
  });

  test('refuses what the model refuses', () => {
    const { config, weights } = load(name);
    expect(errorOf(() => exportOnnx(config, weights, { steps: 13 })).code).toBe('ERR_HPFORMER_SHAPE');
    expect(errorOf(() => exportOnnx(config, weights, { steps: 0 })).code).toBe('ERR_HPFORMER_CONFIG');
    expect(errorOf(() => exportOnnx(config, {}, { steps: 12 })).code).toBe('ERR_HPFORMER_CHECKPOINT');
    const short = { ...weights, 'head.output.weight': new Float32Array(3) };
    expect(errorOf(() => exportOnnx(config, short, { steps: 12 })).message).toContain(
      'head.output.weight: expected 16',
    );
  });
});

test('rule paper: one dynamic graph cuts every length as the package does', () => {
  const { config, weights, tensor } = load('lra_image_ln_mean');
  const paper = { ...config, segments: { ...config.segments, rule: 'paper' as const } };
  const dynamic = decode(exportOnnx(paper, weights, { steps: 'dynamic', maximumSteps: 64 }));
  const all = tensor('input.src_tokens').data;
  for (const steps of [1, 2, 3, 7, 8, 20, 21, 54, 55, 64]) {
    const values = { dims: [1, steps], data: all.subarray(0, steps) };
    const fixed = decode(exportOnnx(paper, weights, { steps }));
    expect(run(dynamic, { values }).logits!.data).toEqual(run(fixed, { values }).logits!.data);
  }
});

test('positions: angles in double, the padding row zero', () => {
  const halves = sinusoidalTable('halves', 6000, 7, 1);
  expect([...halves.subarray(7, 14)]).toEqual([0, 0, 0, 0, 0, 0, 0]);
  expect(halves[5000 * 7 + 1]).toBe(Math.sin(5000 * Math.exp(-Math.log(10000) / 2)));
  expect(halves[5000 * 7 + 6]).toBe(0);
  const interleaved = sinusoidalTable('interleaved', 10, 4, null);
  expect(interleaved[9 * 4 + 3]).toBe(Math.cos(9 * Math.exp((-2 * Math.log(10000)) / 4)));
});
