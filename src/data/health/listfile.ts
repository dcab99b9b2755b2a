import { existsSync } from 'node:fs';
import path from 'node:path';
import { HPformerError } from '../../errors';
import { readText } from '../../files';
import { describe } from '../../tensor/shape';
import { checkType } from '../check';
import { parseCsv } from './csv';
import { episodeId } from './episodes';

/** A list file of one task: labels by stay, in file order. */
export interface ListedStay {
  file: string;
  id: string;
  /** Lines of the stay: hours, and its label columns. */
  lines: { hours: number | undefined; labels: number[] }[];
}

/**
 * Reads a list file (`stay,y_true`, `stay,period_length,y_true`, or `stay,period_length,` and one column a phenotype); stays in the
 * order of their first line.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT` naming line and column, `ERR_HPFORMER_TYPE` for a file name that is no text.
 */
export function readListFile(text: string, file: string): ListedStay[] {
  checkType('readListFile: file', file, 'string');
  const table = parseCsv(text, file);
  const names = [...table.columns.keys()];
  const timed = names[1] === 'period_length';
  if (names[0] !== 'stay' || names.length < (timed ? 3 : 2)) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${file} line 1: expected the columns stay, [period_length,] y_true, got ${names.join(', ')}`,
    );
  }
  const stays = new Map<string, ListedStay>();
  const folder = path.dirname(file);
  table.rows.forEach((row, r) => {
    const numbers = row.slice(1).map((field, c) => {
      const value = field.trim() === '' ? Number.NaN : Number(field);
      if (!Number.isFinite(value)) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `${file} line ${table.lines[r]}, column "${names[c + 1]}": expected a number, got ${describe(field)}`,
        );
      }
      return value;
    });
    const name = row[0]!;
    // A list from elsewhere must not choose files of this machine.
    if (path.isAbsolute(name) || name.split(/[\\/]/).includes('..')) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `${file} line ${table.lines[r]}, column "stay": expected a file in the folder of the list, got ${describe(name)}`,
      );
    }
    const at = path.join(folder, name);
    const stay = stays.get(name) ?? { file: at, id: episodeId(at), lines: [] };
    stays.set(name, stay);
    stay.lines.push({ hours: timed ? numbers[0] : undefined, labels: numbers.slice(timed ? 1 : 0) });
  });
  return [...stays.values()];
}

/**
 * Reads a list file and finds its stays. Lists beside the episodes of one subject name them as the task folders will
 * (`10001_episode1_timeseries.csv`), where the file in the subject's folder is `episode1_timeseries.csv` still.
 *
 * @throws HPformerError as {@link readListFile}, `ERR_HPFORMER_FILE` for a list that cannot be read.
 */
export async function openListFile(list: string): Promise<ListedStay[]> {
  const stays = readListFile(await readText(list), list);
  for (const stay of stays) {
    const { dir, base } = path.parse(path.resolve(stay.file));
    const subject = `${path.basename(dir)}_`;
    if (!base.startsWith(subject) || existsSync(stay.file)) continue;
    const plain = path.join(path.dirname(stay.file), base.slice(subject.length));
    if (existsSync(plain)) stay.file = plain;
  }
  return stays;
}
