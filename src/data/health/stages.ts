/** The work on one stay that threads share: bins for the normaliser, or a model input. One place for both this thread and workers. */
import { HPformerError } from '../../errors';
import { type EpisodeInput, EpisodePreparer, type PreparedEpisode, type PrepareOptions } from './arrays';
import { Normalizer, type NormalizerJSON, stayMoments } from './normalizer';
import type { HealthTask } from './tasks';

/** What is made of each stay: its features, or the moments of its bins that a normaliser is fitted on. */
export type StageKind = 'features' | 'moments';

/** Everything that a stage depends on, as plain data. */
export interface StageOptions {
  kind: StageKind;
  task: HealthTask;
  bins: NonNullable<PrepareOptions['bins']>;
  unknown: 'error' | 'skip';
  /** A malformed stay is reported instead of ending the run. */
  lenient: boolean;
  normalizer: NormalizerJSON | undefined;
}

/** What became of one stay. */
export type StageResult =
  | { kind: 'features'; episode: PreparedEpisode }
  | { kind: 'moments'; moments: Float64Array; rows: number; skipped: number }
  /** No reading in the window of the task. */
  | { kind: 'empty' }
  /** Only when lenient. */
  | { kind: 'malformed'; message: string };

/** One stage, on one thread. */
export class Stage {
  /** Numbers of one stay's result. */
  readonly size: number;
  private readonly preparer: EpisodePreparer;

  constructor(private readonly options: StageOptions) {
    const { task, bins, unknown, normalizer } = options;
    this.preparer = new EpisodePreparer({
      task,
      bins,
      unknown,
      ...(normalizer ? { normalizer: Normalizer.fromJSON(normalizer) } : {}),
    });
    const width = this.preparer.columns.length;
    this.size = options.kind === 'features' ? task.steps * width : 3 * width;
  }

  /**
   * @param end last hour of the stay, where a list file gives it.
   * @param into zeros that the numbers are written to; default: memory of its own.
   */
  run(input: EpisodeInput, end: number | undefined, into?: Float32Array | Float64Array): StageResult {
    try {
      if (this.options.kind === 'features') {
        const episode = this.preparer.prepare(input, end, into as Float32Array | undefined);
        return episode ? { kind: 'features', episode } : { kind: 'empty' };
      }
      const binned = this.preparer.bin(input, end);
      if (!binned) return { kind: 'empty' };
      const moments = (into as Float64Array | undefined) ?? new Float64Array(this.size);
      stayMoments(moments, binned.values, this.preparer.columns.length, binned.bins);
      return { kind: 'moments', moments, rows: binned.bins, skipped: binned.skipped };
    } catch (error) {
      if (!this.options.lenient || !(error instanceof HPformerError) || error.code !== 'ERR_HPFORMER_INPUT')
        throw error;
      return { kind: 'malformed', message: error.message };
    }
  }
}
