import type { Person } from './people';
import { bodyMeasures, events, type NafldRecipe, type Scaling, tests } from './recipe';

const tableSize = tests.length;

function clean(value: number, s: Scaling): number {
  const clipped = Math.min(Math.max(value, s.low), s.high);
  return s.log ? Math.log(clipped) : clipped;
}

function z(value: number, s: Scaling): number {
  return (value - s.mean) / s.scale;
}

/**
 * Writes one person's rows into a zeroed `[steps, width]` array, oldest step first; the last one written is the index date.
 * Arithmetic is double throughout and rounded once, by the store.
 *
 * @param target float32, `recipe.steps · recipe.width` elements from `offset` on, all zero.
 * @returns the number of rows written, 1…`recipe.steps`. The readout step is that minus one.
 */
export function writeSequence(person: Person, recipe: NafldRecipe, target: Float32Array, offset = 0): number {
  const { scaling, steps, width } = recipe;
  // Values of each distinct day; the first of equal (day, test) rows counts.
  const byDay = new Map<number, Float64Array>([[0, new Float64Array(tableSize).fill(Number.NaN)]]);
  for (const { day, test, value } of person.readings) {
    let values = byDay.get(day);
    if (!values) byDay.set(day, (values = new Float64Array(tableSize).fill(Number.NaN)));
    if (Number.isNaN(values[test])) values[test] = clean(value, scaling[tests[test]!]);
  }
  const days = [...byDay.keys()].sort((a, b) => a - b);
  const dropped = Math.max(0, days.length - steps);
  const last = new Float64Array(tableSize).fill(Number.NaN);
  let count = 0;
  for (const [j, day] of days.entries()) {
    const today = byDay.get(day)!;
    for (let t = 0; t < tableSize; t++) {
      if (Number.isNaN(today[t])) continue;
      last[t] = today[t]!;
      count++;
    }
    if (j < dropped) continue;
    let at = offset + (j - dropped) * width;
    for (let t = 0; t < tableSize; t++) target[at++] = Number.isNaN(last[t]) ? 0 : z(last[t]!, scaling[tests[t]!]);
    for (let t = 0; t < tableSize; t++) target[at++] = Number.isNaN(today[t]) ? 0 : 1;
    for (let t = 0; t < tableSize; t++) target[at++] = Number.isNaN(last[t]) ? 0 : 1;
    target[at++] = j === 0 ? 0 : z(Math.log1p(day - days[j - 1]!), scaling.log_gap);
    target[at++] = z(Math.log1p(count), scaling.log_count);
    target[at++] = z(Math.log1p(-day / 365.25), scaling.log_years_before);
    target[at++] = z(person.age, scaling.age);
    target[at++] = person.male;
    for (const [b, name] of bodyMeasures.entries()) {
      const measured = !Number.isNaN(person.body[b]);
      target[at++] = measured ? z(clean(person.body[b]!, scaling[name]), scaling[name]) : 0;
      target[at++] = measured ? 1 : 0;
    }
    for (let e = 0; e < events.length; e++) target[at++] = person.firstDiagnosis[e]! <= day ? 1 : 0;
  }
  return days.length - dropped;
}
