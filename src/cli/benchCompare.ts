/** `hpformer bench compare`: what changed between two saved runs beyond their noise. */
import { readFile } from 'node:fs/promises';
import { HPformerError } from '../errors';
import type { BenchRow, BenchRun } from './benchTiming';

/** One row of a comparison. */
export interface Change {
  name: string;
  before: number | null;
  after: number | null;
  /** before / after: above 1 is faster now. */
  ratio: number | null;
  verdict: 'faster' | 'slower' | 'same' | 'only before' | 'only after';
}

/** Smallest change that counts, however tight the quartiles are. */
const least = 0.03;

/** Rows changed when their quartile ranges do not touch and the medians differ by more than 3 %. */
export function compareRuns(before: BenchRun, after: BenchRun): Change[] {
  const key = ({ name, device, isa }: BenchRow) => {
    const place = [device === 'cpu' && isa !== undefined ? undefined : device, isa].filter((x) => x !== undefined);
    return place.length === 0 ? name : `${name} (${place.join(', ')})`;
  };
  const old = new Map(before.rows.map((row) => [key(row), row]));
  const now = new Map(after.rows.map((row) => [key(row), row]));
  return [...new Set([...old.keys(), ...now.keys()])].map((name) => {
    const a = old.get(name);
    const b = now.get(name);
    if (!a || !b) {
      return {
        name,
        before: a?.ms ?? null,
        after: b?.ms ?? null,
        ratio: null,
        verdict: a ? 'only before' : 'only after',
      };
    }
    const ratio = a.ms / b.ms;
    const apart = a.low > b.high || b.low > a.high;
    const verdict = apart && Math.abs(Math.log(ratio)) > Math.log1p(least) ? (ratio > 1 ? 'faster' : 'slower') : 'same';
    return { name, before: a.ms, after: b.ms, ratio, verdict };
  });
}

/** A saved run. @throws HPformerError `ERR_HPFORMER_FILE`. */
export async function readRun(file: string): Promise<BenchRun> {
  let run: unknown;
  try {
    run = JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    const why = (cause as Error).message;
    throw new HPformerError('ERR_HPFORMER_FILE', `${file}: expected a run saved with bench --json (${why})`, { cause });
  }
  // Rows of `bench attention` name a system and a length.
  const rows = (run as BenchRun | null)?.rows?.map?.((row: BenchRow & { system?: unknown }) =>
    typeof row?.system === 'string' ? { ...row, name: `${row.system} at L=${row.steps}` } : row,
  );
  const good = (row: BenchRow | null) =>
    typeof row?.name === 'string' && [row.ms, row.low, row.high].every((n) => Number.isFinite(n) && n > 0);
  if (!Array.isArray(rows) || !rows.every(good)) {
    throw new HPformerError(
      'ERR_HPFORMER_FILE',
      `${file}: expected rows with name, ms, low and high, got something else`,
    );
  }
  return { ...(run as BenchRun), rows };
}
