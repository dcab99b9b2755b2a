/** onnxruntime-node as its users would tune it: several graphs and session options, the fastest in a short trial wins. */
import * as ort from 'onnxruntime-node';
import { interleaved } from './measure';

export interface OrtChoice {
  label: string;
  run: () => Promise<ort.InferenceSession.ReturnType>;
  release: () => Promise<void>;
}

export interface OrtGraph {
  label: string;
  bytes: Uint8Array;
}

type Input = { name: string; tensor: { type: string; data: Float32Array | Int32Array; dims: number[] } };

const sessionOptions = (threads: number, spin: boolean, arena: boolean): ort.InferenceSession.SessionOptions => ({
  executionProviders: ['cpu'],
  graphOptimizationLevel: 'all',
  executionMode: 'sequential',
  intraOpNumThreads: threads,
  interOpNumThreads: 1,
  enableCpuMemArena: arena,
  logSeverityLevel: 3,
  extra: { session: { set_denormal_as_zero: '1', intra_op: { allow_spinning: spin ? '1' : '0' } } },
});

export async function open(
  graph: OrtGraph,
  input: Input,
  threads: number,
  spin = true,
  arena = true,
): Promise<OrtChoice> {
  const session = await ort.InferenceSession.create(graph.bytes, sessionOptions(threads, spin, arena));
  const tensor = new ort.Tensor(input.tensor.type as 'float32', input.tensor.data as Float32Array, input.tensor.dims);
  const feeds = { [input.name]: tensor };
  const options = [spin ? '' : 'no spinning', arena ? '' : 'no arena'].filter(Boolean).join(', ');
  return {
    label: options ? `${graph.label} (${options})` : graph.label,
    run: () => session.run(feeds),
    release: () => session.release(),
  };
}

/** The fastest of the graphs, then of the session options for it. Losers are released. */
export async function fastest(graphs: OrtGraph[], input: Input, threads: number, trialMs: number): Promise<OrtChoice> {
  const first: OrtChoice[] = [];
  for (const graph of graphs) first.push(await open(graph, input, threads));
  const winner = await pick(first, trialMs);
  const graph = graphs[winner]!;
  const best = first[winner]!;
  for (const choice of first) if (choice !== best) await choice.release();
  const second = [best, await open(graph, input, threads, false), await open(graph, input, threads, true, false)];
  const chosen = second[await pick(second, trialMs)]!;
  for (const choice of second) if (choice !== chosen) await choice.release();
  return chosen;
}

async function pick(choices: OrtChoice[], trialMs: number): Promise<number> {
  if (choices.length === 1) return 0;
  const timings = await interleaved(
    choices.map((choice) => ({ name: choice.label, call: choice.run })),
    3,
    trialMs,
  );
  let best = 0;
  for (const [i, timing] of timings.entries()) if (timing.median < timings[best]!.median) best = i;
  return best;
}
