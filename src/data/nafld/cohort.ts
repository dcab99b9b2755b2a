import { createHash } from 'node:crypto';
import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import type { Person } from './people';
import { events, type NafldRecipe } from './recipe';

/** Parts of the split; a matched set lies in exactly one. */
export const parts = ['train', 'valid', 'test'] as const;
export type Part = (typeof parts)[number];

/** What a model predicts: `death`, or the first diagnosis of an event, within the recipe's horizon. */
export type OutcomeName = 'death' | (typeof events)[number];

/** The part of a matched set: the first 32 bits of SHA-256(prefix + set) as a fraction of 2³². */
export function partOf(matchedSet: string, recipe: NafldRecipe): Part {
  const { prefix, trainBelow, validBelow } = recipe.split;
  const u =
    createHash('sha256')
      .update(prefix + matchedSet)
      .digest()
      .readUInt32BE(0) /
    2 ** 32;
  return u < trainBelow ? 'train' : u < validBelow ? 'valid' : 'test';
}

/** Checks that names are outcomes that this data can answer. */
export function parseOutcomes(names: readonly string[]): OutcomeName[] {
  const legal: readonly string[] = ['death', ...events];
  for (const [i, name] of names.entries()) {
    if (!legal.includes(name)) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `labels[${i}]: expected one of ${legal.join(', ')}, got ${describe(name)}`,
      );
    }
  }
  return names as OutcomeName[];
}

/**
 * 1 or 0, or undefined where it cannot be known: follow-up ended within the horizon, or the person had the disease before.
 * The person must have been read with outcomes.
 */
export function labelOf(person: Person, outcome: OutcomeName, horizon: number): 0 | 1 | undefined {
  const { followUp, died } = person.outcome!;
  if (outcome === 'death') {
    if (died && followUp < horizon) return 1;
    // A death at or after the horizon leaves followUp >= horizon, so both conditions of the cohort meet here.
    return followUp >= horizon ? 0 : undefined;
  }
  const day = person.firstDiagnosis[events.indexOf(outcome)]!;
  if (day <= 0) return undefined;
  if (day <= horizon) return 1;
  return followUp >= horizon ? 0 : undefined;
}

/** True when a person has enough usable rows to be scored. */
export function isUsable(person: Person, recipe: NafldRecipe): boolean {
  return person.readings.length >= recipe.minimumRows;
}
