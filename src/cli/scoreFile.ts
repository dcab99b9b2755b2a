import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { csvField } from '../data/health/csv';
import { HPformerError } from '../errors';
import { fileError, TextWriter } from '../files';
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
  private readonly file: { target: string; temporary: string; writer: TextWriter } | undefined;
  /** An interrupted run must not leave the file that it was writing. */
  private readonly onExit = () => {
    if (fs.existsSync(this.file!.temporary)) fs.rmSync(this.file!.temporary);
  };
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
      const temporary = path.join(path.dirname(target), `.${path.basename(target)}.${randomBytes(6).toString('hex')}`);
      const writer = new TextWriter(temporary, 'wx', target);
      this.file = { target, temporary, writer };
      this.put = (text) => writer.write(text);
      process.once('exit', this.onExit);
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
    if (!this.file) return;
    const { target, temporary, writer } = this.file;
    try {
      await writer.end();
      await fs.promises.rename(temporary, target);
    } catch (error) {
      await this.abandon();
      throw error instanceof HPformerError ? error : fileError(target, 'written', error);
    }
    process.off('exit', this.onExit);
  }

  /** Removes what was written so far. */
  async abandon(): Promise<void> {
    if (!this.file) return;
    await this.file.writer.abandon();
    // Where it could not be made there is nothing to remove.
    await fs.promises.rm(this.file.temporary, { force: true }).catch(() => undefined);
    process.off('exit', this.onExit);
  }
}
