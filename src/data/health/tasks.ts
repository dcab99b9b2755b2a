import { HPformerError } from '../../errors';
import { checkInteger } from '../../model/options';
import { describe } from '../../tensor/shape';
import { checkFields, wrongType } from '../check';
import { PythonRandom } from './python';

/** What the list files of the tasks need of one episode. */
export interface ListedEpisode {
  /** Name of the time-series file in the task folder. */
  file: string;
  /** Times of its rows, ascending. */
  hours: readonly number[];
  /** Length of the stay in hours. */
  stayHours: number;
  /** In-hospital death. */
  died: boolean;
  /** Hours from admission to death, where known. */
  livedHours: number | undefined;
}

const eps = 1e-6;
const shuffleSeed = 49297;

/** Sample hours 0, 1, 2 … up to `end`, after hour 4 and after the first event. */
function sampleHours(end: number, firstEvent: number): number[] {
  const out: number[] = [];
  for (let t = 0; t < end + eps; t++) if (t > 4 && t > firstEvent) out.push(t);
  return out;
}

function shuffled<T>(list: T[]): T[] {
  new PythonRandom(shuffleSeed).shuffle(list);
  return list;
}

/** The list files of in-hospital mortality, decompensation and length of stay, in the order of the published shuffle. */
export function listFiles(episodes: readonly ListedEpisode[]): Record<string, string> {
  const mortality: string[] = [];
  const decompensation: string[] = [];
  const lengthOfStay: string[] = [];
  for (const { file, hours, stayHours, died, livedHours } of episodes) {
    if (stayHours >= 48 - eps && hours.some((t) => t > -eps && t < 48 + eps)) mortality.push(`${file},${died ? 1 : 0}`);
    const first = hours.find((t) => t > -eps && t < stayHours + eps);
    if (first === undefined) continue;
    const lived = livedHours ?? 1e18;
    for (const t of sampleHours(Math.min(stayHours, lived), first)) {
      decompensation.push(`${file},${t.toFixed(6)},${died && lived - t < 24 ? 1 : 0}`);
    }
    for (const t of sampleHours(stayHours, first)) {
      lengthOfStay.push(`${file},${t.toFixed(6)},${(stayHours - t).toFixed(6)}`);
    }
  }
  const text = (head: string, lines: string[]): string => [head, ...shuffled(lines), ''].join('\n');
  return {
    'in_hospital_mortality_listfile.csv': text('stay,y_true', mortality),
    'decompensation_listfile.csv': text('stay,period_length,y_true', decompensation),
    'length_of_stay_listfile.csv': text('stay,period_length,y_true', lengthOfStay),
  };
}

/** The published tasks. */
export type HealthTaskName = 'in-hospital-mortality' | 'decompensation' | 'length-of-stay' | 'phenotyping';

/** How a task turns a stay into model inputs. */
export interface HealthTask {
  readonly name: HealthTaskName;
  /** Steps that the model is fed, after padding or cutting at the end. */
  readonly steps: number;
  /** Hours that are discretised; null: the whole stay. */
  readonly end: number | null;
  /** Number of outputs of the head. */
  readonly labels: number;
  /** What the head reads: the last step of the stay, or every step. */
  readonly readout: 'step' | 'steps';
}

/** The tasks as published; phenotyping, for which no script was published, with the benchmark's 25 labels and the DP/LOS length. */
export const healthTasks: Readonly<Record<HealthTaskName, HealthTask>> = {
  'in-hospital-mortality': { name: 'in-hospital-mortality', steps: 48, end: 48, labels: 1, readout: 'step' },
  decompensation: { name: 'decompensation', steps: 504, end: null, labels: 1, readout: 'steps' },
  'length-of-stay': { name: 'length-of-stay', steps: 504, end: null, labels: 10, readout: 'steps' },
  phenotyping: { name: 'phenotyping', steps: 504, end: null, labels: 25, readout: 'step' },
};

/** Checks what a task says of its steps. @throws HPformerError `ERR_HPFORMER_TYPE`, `ERR_HPFORMER_RANGE`. */
export function checkTask(where: string, task: HealthTask): void {
  checkFields(where, task, { name: 'string', steps: 'number', labels: 'number', readout: 'string' });
  const { steps, end, labels, readout } = task;
  checkInteger(`${where}: steps`, steps, 1, 2 ** 31 - 1);
  checkInteger(`${where}: labels`, labels, 1, 2 ** 31 - 1);
  if (end !== null && typeof end !== 'number') throw wrongType(`${where}: end`, 'a number of hours, or null', end);
  if (readout === 'step' || readout === 'steps') return;
  throw new HPformerError('ERR_HPFORMER_RANGE', `${where}: readout: expected step or steps, got ${describe(readout)}`);
}

/**
 * Steps of `step` hours must reach the end of what a task discretises: what lies after them would be cut off without a word.
 *
 * @throws HPformerError `ERR_HPFORMER_RANGE`.
 */
export function checkWindow(where: string, { name, steps, end }: HealthTask, step: number): void {
  if (end === null || steps * step >= end - eps) return;
  throw new HPformerError(
    'ERR_HPFORMER_RANGE',
    `${where}: expected at least ${Math.ceil(end / step - eps)} steps of ${step} h for the ${end} hours of ${name}, got ${steps}`,
  );
}

/** Labels of hourly tasks are one an hour, so their steps must be hours. @throws HPformerError `ERR_HPFORMER_RANGE`. */
export function checkLabelSteps(where: string, { name, readout }: HealthTask, step: number): void {
  if (readout === 'step' || step === 1) return;
  throw new HPformerError('ERR_HPFORMER_RANGE', `${where}: expected steps of 1 h for labels of ${name}, got ${step} h`);
}
