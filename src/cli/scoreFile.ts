import { csvField } from '../data/health/csv';
import { WholeTextWriter } from '../files';
import { UsageError, write } from './command';

/** File formats of scores, by file name ending. */
export type ScoreFormat = 'csv' | 'jsonl';

/** The format that a file name asks for. @throws UsageError. */
export function scoreFormat(file: string): ScoreFormat {
  if (file.endsWith('.csv')) return 'csv';
  if (file.endsWith('.jsonl')) return 'jsonl';
  throw new UsageError(`--out: expected a name that ends in .csv or .jsonl, got "${file}"`);
}

/** Shortest text of a probability: nine digits say all of a float32, float64 is written in full. */
function digits(value: number, double: boolean): number {
  return double ? value : Number(value.toPrecision(9));
}

/**
 * Writes scores row by row. A file appears under its name only when complete (it is written beside it and renamed), so a failed or
 * interrupted run leaves an earlier file as it was.
 */
export class ScoreWriter {
  private readonly file: WholeTextWriter | undefined;
  private readonly put: (text: string) => Promise<void>;
  private begun = false;

  /**
   * @param target a file path, or a stream.
   * @param columns names of the scores; the id column comes first.
   * @param double write full float64 precision.
   */
  constructor(
    target: string | NodeJS.WritableStream,
    private readonly format: ScoreFormat,
    private readonly idColumn: string,
    private readonly columns: readonly string[],
    private readonly double: boolean,
  ) {
    if (typeof target === 'string') {
      const file = new WholeTextWriter(target);
      this.file = file;
      this.put = (text) => file.write(text);
    } else {
      this.put = (text) => write(target, text);
    }
  }

  /** Writes the header, once; before the first row or the end it comes by itself. */
  async begin(): Promise<void> {
    if (this.begun) return;
    this.begun = true;
    if (this.format === 'csv') await this.put(`${[this.idColumn, ...this.columns].map(csvField).join(',')}\n`);
  }

  /** @param scores `[ids.length, columns.length]`, row-major. */
  async rows(ids: readonly (string | number)[], scores: ArrayLike<number>): Promise<void> {
    const width = this.columns.length;
    const lines = ids.map((id, i) => {
      const values = this.columns.map((_, k) => digits(scores[i * width + k]!, this.double));
      if (this.format === 'csv') return [csvField(String(id)), ...values].join(',');
      return JSON.stringify(
        Object.fromEntries([[this.idColumn, id], ...this.columns.map((name, k) => [name, values[k]])]),
      );
    });
    if (lines.length === 0) return;
    await this.begin();
    await this.put(`${lines.join('\n')}\n`);
  }

  /** Makes the file visible under its name. */
  async end(): Promise<void> {
    await this.begin();
    await this.file?.end();
  }

  /** Removes what was written so far. */
  async abandon(): Promise<void> {
    await this.file?.abandon();
  }
}
