import { createHash } from 'node:crypto';
import type { ScoreSource } from '../data/recipes';
import { HPformerError } from '../errors';

/** The error of inputs without anything to score. */
export function nothingScored(inputs: readonly string[], { unit, drops }: ScoreSource): HPformerError {
  const left = drops && drops.total > 0 ? `; left out: ${drops}` : '';
  return new HPformerError(
    'ERR_HPFORMER_INPUT',
    `${inputs.join(', ')}: expected at least one of ${unit}, got none${left}`,
  );
}

/** Names seen, by 52 bits of their hashes, 16 to 32 bytes each: millions fit where their texts would not. */
class Names {
  private slots = new Float64Array(1024);
  private count = 0;

  /** @returns whether the name was there already. */
  add(name: string): boolean {
    if (2 * this.count >= this.slots.length) {
      const old = this.slots;
      this.slots = new Float64Array(2 * old.length);
      for (const hash of old) if (hash !== 0) this.slots[this.slot(hash)] = hash;
    }
    const hash = hashOf(name);
    const at = this.slot(hash);
    if (this.slots[at] === hash) return true;
    this.slots[at] = hash;
    this.count++;
    return false;
  }

  /** Where a hash is, or would be. */
  private slot(hash: number): number {
    const { slots } = this;
    let at = hash % slots.length;
    while (slots[at] !== 0 && slots[at] !== hash) at = (at + 1) % slots.length;
    return at;
  }
}

/** 52 bits of a hash, plus 1: a free slot is 0. */
function hashOf(text: string): number {
  const bytes = createHash('sha256').update(text).digest();
  return bytes.readUIntBE(0, 6) * 16 + (bytes[6]! & 15) + 1;
}

/** Counts what people should know of scores: rows of one name, and scores that are no numbers. */
export class ScoreWatch {
  rows = 0;
  private readonly names = new Names();
  private repeated = { count: 0, first: '' };
  private notFinite = { count: 0, first: '' };

  /** @param columns scores a row. */
  constructor(private readonly columns: number) {}

  add(ids: readonly (string | number)[], scores: ArrayLike<number>): void {
    const { columns } = this;
    ids.forEach((id, i) => {
      this.rows++;
      if (this.names.add(String(id))) count(this.repeated, id);
      for (let c = i * columns; c < (i + 1) * columns; c++) {
        if (Number.isFinite(scores[c])) continue;
        count(this.notFinite, id);
        break;
      }
    });
  }

  /** A line of each kind that occurred. */
  warnings(unit: string): string {
    const { repeated, notFinite, rows } = this;
    const lines: string[] = [];
    if (repeated.count > 0)
      lines.push(
        `note: ${repeated.count} of ${rows} ${unit} have the name of an earlier one, first: ${repeated.first}\n`,
      );
    if (notFinite.count > 0) {
      const why = 'a reading was NaN or infinite';
      lines.push(
        `note: ${notFinite.count} of ${rows} ${unit} have a score that is no number (${why}), first: ${notFinite.first}\n`,
      );
    }
    return lines.join('');
  }
}

function count(seen: { count: number; first: string }, id: string | number): void {
  if (seen.count++ === 0) seen.first = String(id);
}
