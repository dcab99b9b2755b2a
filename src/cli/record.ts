import type { Scored } from '../data/evaluation';
import { type PredictionRecord, RecordWriter } from '../data/health/record';
import type { ScoreBatch } from '../data/recipes';

/** The prediction record of a run: one JSON line a scored row. */
export class RecordLog {
  private readonly writer: RecordWriter;

  constructor(
    file: string,
    private readonly features: boolean,
  ) {
    this.writer = new RecordWriter(file);
  }

  /** Appends the rows of a batch of a health bundle. */
  async add(
    scored: Scored<ScoreBatch>,
    model: { device: string; config: { head: { labels: number } } },
  ): Promise<void> {
    const { labels } = model.config.head;
    for (let i = 0; i < scored.ids.length; i++) {
      const raw = Array.from({ length: labels }, (_, c) => scored.raw[i * labels + c]!);
      await this.writer.write(scored.record!(i, raw, model.device, this.features) as PredictionRecord);
    }
  }

  end(): Promise<void> {
    return this.writer.end();
  }
}
