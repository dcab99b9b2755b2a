/** What the comparisons with other runtimes share: the case asked for, our model and its input, a row, an orderly end. */
import { writeFileSync } from 'node:fs';
import { type Case, cases, inputOf } from './cases';
import { api, type Config, type Feeds, type Model } from './package';

/** One line of a comparison, as `--json` writes it. */
export interface Row {
  case: string;
  batch: number;
  threads: number;
  precision: string;
  opponent: string;
  ours: number;
  theirs: number;
  unit: string;
  /** Above 1: ours is faster. Ratio of the medians of this run. */
  ratio: number;
  /** Largest difference of the compared output; null for the Transformer, which is another model. */
  maxError: number | null;
}

/** The cases of the given names. Ends the process with 2 where one is not among `allowed`. */
export function casesNamed(names: readonly string[], allowed: readonly Case[] = cases): Case[] {
  const unknown = names.find((name) => !allowed.some((item) => item.name === name));
  if (unknown !== undefined) {
    console.error(`bench: expected cases among ${allowed.map((item) => item.name).join(', ')}, got "${unknown}"`);
    process.exit(2);
  }
  return names.map((name) => allowed.find((item) => item.name === name)!);
}

/** The same numbers in a SharedArrayBuffer, which the package reads in place instead of copying (as its README advises for big batches). */
function inSharedMemory<T extends { data: unknown }>(tensor: T): T {
  const from = tensor.data as Float32Array | Int32Array;
  const data = new (from.constructor as Float32ArrayConstructor)(new SharedArrayBuffer(from.byteLength));
  data.set(from);
  return { ...tensor, data, type: (tensor as { type?: unknown }).type, dims: (tensor as { dims?: unknown }).dims };
}

/** Config, input (for the peer) and feeds (the same numbers, for us) of a case at a batch size. */
export function inputsOf(
  item: Case,
  batch: number,
): { config: Config; input: ReturnType<typeof inputOf>; feeds: Feeds } {
  const config = item.config(api().presets);
  const input = inputOf(config, batch, item.steps);
  return { config, input, feeds: { [input.name]: inSharedMemory(input.tensor) } as unknown as Feeds };
}

/** Our model of a case, with the weights that every comparison uses. */
export function ourModel(
  config: Config,
  threads: number,
  precision: 'float32' | 'bfloat16' = 'float32',
): Promise<Model> {
  return api().HPformer.create(config, { seed: 2023, device: 'cpu', precision, threads });
}

/** Runs a comparison to its end: rows to a file where asked, a message instead of a stack where it fails. */
export function finish(work: Promise<readonly Row[]>, json: string | undefined): void {
  work.then(
    (rows) => {
      if (json) writeFileSync(json, `${JSON.stringify({ rows }, null, 2)}\n`);
      // Peers leave threads behind that would keep the process alive.
      process.exit(0);
    },
    (error: unknown) => {
      console.error(error instanceof Error ? error.message : error);
      process.exit(1);
    },
  );
}
