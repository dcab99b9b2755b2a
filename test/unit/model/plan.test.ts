import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { type HPformerConfig, presets } from '../../../src';
import { buildPlan, type PlanContext } from '../../../src/model/plan';
import { type RewriteName, rewriteNames } from '../../../src/model/types';
import { seed } from '../../seed';
import { root } from '../../skips';
import { health, image, retrieval, text, valid } from './configs';

const all = 2 ** rewriteNames.length - 1;
const tile = { tokens: 24, sequences: 48 };
const cpu: PlanContext = { device: 'cpu', precision: 'float32', isa: 'avx2', tile, rewrites: all, threads: 0 };

function applied(config: HPformerConfig, batch: number, steps: number, context = cpu): RewriteName[] {
  return buildPlan(config, { batch, steps }, context)
    .rewrites.filter((r) => r.applies)
    .map((r) => r.name);
}

test('mortality: one row read, the embedding absorbed, the output not folded', () => {
  const plan = buildPlan(presets.mortality(), { batch: 256, steps: 48 }, cpu);
  expect(plan.segments).toEqual({ count: 4, length: 12, padding: 0 });
  expect(plan.rows).toBe(1);
  expect(plan.tiles).toEqual({ tokens: 48, count: 6, threads: 0 });
  expect(applied(presets.mortality(), 256, 48)).toEqual([
    'depthFirst',
    'readoutPruning',
    'absorbedEmbedding',
    'foldedWeights',
  ]);
  // The layers of 47 of 48 rows are gone.
  expect(plan.flops).toBeLessThan(plan.unfused.flops / 20);
});

test('decompensation: all rows read, folded output pays, the embedding is absorbed for its memory traffic', () => {
  expect(applied(presets.decompensation(), 8, 504)).toEqual([
    'depthFirst',
    'absorbedEmbedding',
    'foldedOutput',
    'foldedWeights',
  ]);
  const plan = buildPlan(presets.decompensation(), { batch: 8, steps: 504 }, cpu);
  expect(plan.tiles).toEqual({ tokens: 24, count: 8 * 21, threads: 0 });
  const wide = { ...cpu, tile: { tokens: 48, sequences: 48 } };
  expect(buildPlan(presets.decompensation(), { batch: 8, steps: 504 }, wide).tiles.count).toBe(8 * 11);
});

test('text: zero rows in closed form, padding skipped', () => {
  const config = presets.text();
  expect(applied(config, 8, 4000)).toEqual(
    expect.arrayContaining(['readoutPruning', 'zeroRowsClosedForm', 'foldedOutput']),
  );
  const plan = buildPlan(config, { batch: 8, steps: 4000 }, cpu);
  expect(plan.segments).toEqual({ count: 10, length: 444, padding: 440 });
  expect(plan.rewrites.find((r) => r.name === 'zeroRowsClosedForm')!.savedFlops).toBe(8 * 440 * (5 * 256 + 3));
});

test('each reason says why', () => {
  const reason = (config: HPformerConfig, name: RewriteName, rows?: number) =>
    buildPlan(config, rows === undefined ? { batch: 1, steps: 48 } : { batch: 1, steps: 48, rows }, cpu).rewrites.find(
      (r) => r.name === name,
    )!.reason;
  expect(reason(health({ embeddingNorm: true }), 'absorbedEmbedding')).toContain('norm is not linear');
  expect(reason(health({ segments: { ...health().segments, pooling: 'max' } }), 'absorbedEmbedding')).toContain(
    'max pooling',
  );
  expect(applied(presets.mortality(), 1, 48, { ...cpu, rewrites: all & ~64 })).not.toContain('absorbedEmbedding');
  expect(applied(presets.decompensation(), 1, 2051)).not.toContain('absorbedEmbedding');
  expect(reason(text(), 'absorbedEmbedding')).toContain('not a linear map');
  expect(reason(health(), 'readoutPruning', 48)).toContain('reads all 48 steps');
  expect(reason(health(), 'readoutPruning', 3)).toContain('reads 3 of 48');
  expect(reason(health(), 'zeroRowsClosedForm')).toContain('divide the length');
  expect(reason(image(), 'tokenTables')).toContain('not a table');
  expect(reason(health({ norm: 'batchnorm' }), 'foldedWeights')).toContain('batchnorm');
});

test('on a CUDA device: the fused kernel where the shape has one, and never a folded output', () => {
  const cuda: PlanContext = { ...cpu, device: 'cuda:0', isa: '', tile: { tokens: 16, sequences: 16 } };
  const names = (config: HPformerConfig, steps: number, context = cuda) =>
    buildPlan(config, { batch: 8, steps }, context)
      .rewrites.filter((r) => r.applies)
      .map((r) => r.name);
  expect(names(presets.decompensation(), 504, cpu)).toContain('foldedOutput');
  expect(names(presets.decompensation(), 504)).toEqual(['depthFirst', 'absorbedEmbedding', 'foldedWeights']);
  expect(names(presets.decompensation(), 3003)).toContain('absorbedEmbedding');
  expect(names(presets.mortality(), 48)).toContain('readoutPruning');
  for (const [config, context] of [
    [presets.mortality({ hidden: 320, heads: 8 }), cuda],
    [presets.mortality({ embedding: { size: 200 } }), cuda],
    [presets.mortality(), { ...cuda, rewrites: all & ~1 }],
  ] as const)
    expect(names(config, 48, context)).toEqual(['foldedWeights']);
});

test('the shapes of the fused kernel are those that cuda/ is compiled for', () => {
  const text = (file: string) => readFileSync(join(root, 'cuda', file), 'utf8');
  const widths = /foreach\(hidden ([\d ]+)\)/.exec(text('cuda.cmake'))![1]!.split(' ').map(Number);
  const mostSegments = Number(/kMaxSegments = (\d+);/.exec(text('layout.h'))![1]);
  const mostHeadLayers = Number(/kMaxHeadLayers = (\d+);/.exec(text('params.h'))![1]);
  const cuda: PlanContext = { ...cpu, device: 'cuda:0', isa: '', tile: { tokens: 16, sequences: 16 } };
  const fused = (over: Parameters<typeof presets.mortality>[0], steps = 48) =>
    buildPlan(presets.mortality(over), { batch: 1, steps }, cuda).rewrites.find((r) => r.name === 'depthFirst')!
      .applies;
  const all = Array.from({ length: 24 }, (_, i) => 16 * (i + 1));
  expect(all.filter((hidden) => fused({ hidden, heads: 4 }))).toEqual(widths);
  const segments = (steps: number) => fused({ segments: { rule: 'upstream', times: steps, steps: 1 } }, steps);
  expect([segments(mostSegments), segments(mostSegments + 1)]).toEqual([true, false]);
  const head = (count: number) => fused({ head: { layers: Array(count).fill({ size: 8, activation: 'relu' }) } });
  expect([head(mostHeadLayers - 1), head(mostHeadLayers)]).toEqual([true, false]); // the output layer is one of them
});

test('switched off by name, and the reference uses none', () => {
  for (const [bit, name] of rewriteNames.entries()) {
    const off = buildPlan(presets.mortality(), { batch: 2, steps: 48 }, { ...cpu, rewrites: all & ~(1 << bit) });
    expect(off.rewrites[bit]).toEqual({
      name,
      enabled: false,
      applies: false,
      reason: 'switched off',
      savedFlops: 0,
      savedBytes: 0,
    });
  }
  const reference = buildPlan(
    presets.mortality(),
    { batch: 2, steps: 48 },
    { ...cpu, device: 'reference', precision: 'float64' },
  );
  expect(reference.rewrites.some((r) => r.applies)).toBe(false);
  expect(reference.flops).toBe(reference.unfused.flops);
});

test(`what applies never depends on the batch, and costs stay sane (seed=${seed})`, () => {
  const configs = [
    health(),
    valid(health()),
    text(),
    valid(text()),
    image(),
    presets.decompensation(),
    presets.listops(),
    presets.pathfinder(),
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...configs),
      fc.integer({ min: 4, max: 300 }),
      fc.integer({ min: 2, max: 500 }),
      (config, n, batch) => {
        const { steps: fixed, over } = config.segments;
        const steps = fixed !== null && over === 'padded' ? n * (Math.floor(Math.log(fixed)) + 1) : n;
        const alone = buildPlan(config, { batch: 1, steps }, cpu);
        const many = buildPlan(config, { batch, steps }, cpu);
        expect(many.rewrites.map((r) => [r.name, r.applies, r.reason])).toEqual(
          alone.rewrites.map((r) => [r.name, r.applies, r.reason]),
        );
        expect(many.flops).toBe(batch * alone.flops);
        for (const plan of [alone, many]) {
          expect(plan.flops).toBeGreaterThan(0);
          expect(plan.flops).toBeLessThanOrEqual(plan.unfused.flops);
          expect(plan.bytes).toBeGreaterThan(0);
          expect(plan.bytes).toBeLessThanOrEqual(plan.unfused.bytes);
          expect(plan.rewrites.every((r) => r.savedFlops >= 0 && r.savedBytes >= 0)).toBe(true);
        }
        expect(many.workspaceBytes).toBe(alone.workspaceBytes);
      },
    ),
    { seed, numRuns: 200 },
  );
});

test('two sequences are planned together', () => {
  const plan = buildPlan(retrieval(), { batch: 4, steps: 33, steps2: 45 }, cpu);
  expect([plan.segments.count, plan.segments2!.length]).toEqual([5, 11]);
  expect(plan.tiles.count).toBe(4 * (2 + 2));
  expect(plan.toMermaid().match(/==>/g)).toHaveLength(2);
});

test('plain data, text and picture', () => {
  const plan = buildPlan(presets.mortality(), { batch: 2, steps: 48 }, cpu);
  const json = JSON.parse(JSON.stringify(plan));
  expect(json).toEqual(plan.toJSON());
  expect(json.rewrites).toHaveLength(7);
  json.rewrites[0].applies = 'changed';
  expect(plan.rewrites[0]!.applies).toBe(true);
  expect(String(plan)).toContain('cpu, float32: batch 2, 48 steps in 4 segments of 12 (0 zero rows)');
  expect(String(plan)).toMatch(/readoutPruning +yes/);
  expect(plan.toMermaid()).toContain('tdhp ==>|K_comp| layer_0 & layer_1');
});

test.each([
  [null, 'TYPE', 'plan: expected { batch, steps }'],
  [{ steps: 48 }, 'TYPE', 'batch: expected an integer, got undefined'],
  [{ batch: 0, steps: 48 }, 'RANGE', 'batch: expected an integer from 1'],
  [{ batch: 1, steps: 1.5 }, 'RANGE', 'steps: expected an integer from 1'],
  [{ batch: 1, steps: 47 }, 'SHAPE', 'nearest: 44 or 48'],
  [{ batch: 1, steps: 48, rows: 49 }, 'RANGE', 'rows: expected an integer from 0 to 48, got 49'],
])('the shape %p is refused', (shape, code, message) => {
  const plan = () => buildPlan(health(), shape as never, cpu);
  expect(plan).toThrow(message);
  expect(plan).toThrow(expect.objectContaining({ code: `ERR_HPFORMER_${code}` }));
});

test('a shape that the position table does not reach is refused, as by a run', () => {
  const config = health({ positions: { kind: 'learned', maximum: 40 } });
  expect(() => buildPlan(config, { batch: 1, steps: 48 }, cpu)).toThrow(
    'expected at most 40 steps (learned positions), got 48',
  );
});
