/**
 * `node bench/run.cjs wasm [--cases a,b] [--rounds N] [--json FILE]`: the same comparison with what runs without native code:
 * onnxruntime-web and tfjs, both on WebAssembly. One thread each (their Node builds start no workers), one of ours.
 */
import { parseArgs } from 'node:util';
import * as ort from 'onnxruntime-web';
import { cases } from './cases';
import { interleaved } from './measure';
import { onnx, weightsOf } from './package';
import { casesNamed, finish, inputsOf, ourModel, type Row } from './setup';
import { openTfjs } from './tfjs';

const { values: options } = parseArgs({
  options: {
    cases: { type: 'string', default: 'mortality,decompensation,image' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'string' },
  },
});

async function main(): Promise<Row[]> {
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = 'error';
  const rows: Row[] = [];
  const comparable = cases.filter((item) => !item.transformer);
  for (const item of casesNamed(options.cases.split(','), comparable)) {
    const { name } = item;
    // WebAssembly is slow enough that the smallest batch says it all.
    const batch = Math.min(item.batches[0]!, item.steps > 500 ? 2 : 32);
    const { config, input, feeds } = inputsOf(item, batch);
    const model = await ourModel(config, 1);
    const expected = (await model.run(feeds)).logits.data as Float32Array;
    const weights = await weightsOf(model);
    const tensor = new ort.Tensor(input.tensor.type as 'float32', input.tensor.data as Float32Array, input.tensor.dims);
    const graphs = await Promise.all(
      item.graphs.map(async (variant) => {
        const shape = { variant, steps: item.steps, step: 'last', padding: false, tokenType: 'int32' } as const;
        const graph = onnx().exportOnnx(config, weights, shape);
        const session = await ort.InferenceSession.create(graph, { executionProviders: ['wasm'] });
        const logits = async () => (await session.run({ [input.name]: tensor })).logits!.data as Float32Array;
        return { name: `onnxruntime-web ${variant}`, logits, release: () => session.release() };
      }),
    );
    // Its best graph in a short trial.
    const trials = await interleaved(
      graphs.map(({ name: graph, logits }) => ({ name: graph, call: logits })),
      2,
      item.blockMs,
    );
    const medians = trials.map(({ median }) => median);
    const web = graphs[medians.indexOf(Math.min(...medians))]!;
    const peers = [{ name: web.name, logits: web.logits }];
    const tf = await openTfjs(config, weights, input, item.steps);
    if (tf) peers.push({ name: 'tfjs-backend-wasm', logits: tf });
    const errors: number[] = [];
    for (const { name: peer, logits } of peers) {
      const got = await logits();
      const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - got[i]!)), 0);
      if (!(worst <= 1e-3) || got.length !== expected.length)
        throw new Error(`${name}: ${peer} differs by up to ${worst}`);
      errors.push(worst);
    }
    const contestants = [
      { name: 'hpformer', call: () => model.run(feeds) },
      ...peers.map((p) => ({ name: p.name, call: p.logits })),
    ];
    const [ours, ...theirs] = await interleaved(contestants, Number(options.rounds), item.blockMs);
    for (const [i, timing] of theirs.entries()) {
      const row: Row = {
        case: name,
        batch,
        threads: 1,
        precision: 'float32',
        opponent: peers[i]!.name,
        ours: (batch * 1000) / ours!.median,
        theirs: (batch * 1000) / timing.median,
        unit: 'sequences/s',
        ratio: timing.median / ours!.median,
        maxError: errors[i]!,
      };
      rows.push(row);
      console.log(
        `${name.padEnd(16)} batch ${String(batch).padEnd(4)} ${row.opponent.padEnd(24)} ${row.ratio.toFixed(1)}x  (max error ${errors[i]!.toExponential(1)})`,
      );
    }
    model.dispose();
    for (const graph of graphs) await graph.release();
  }
  return rows;
}

finish(main(), options.json);
