import { Tensor } from '../../tensor/tensor';
import { isUsable } from './cohort';
import { type Person, readPeople } from './people';
import type { NafldRecipe } from './recipe';
import { writeSequence } from './sequence';

/** People and their model inputs, row i of each tensor belonging to person i. */
export interface NafldBatch {
  people: Person[];
  /** `features` float32 `[B, steps, width]`, `step` int32 `[B]`. */
  feeds: { features: Tensor<'float32'>; step: Tensor<'int32'> };
}

export interface NafldBatchOptions {
  /** People per batch; default 256. */
  size?: number;
  /** Read outcome columns; default false: they are not looked at and may be absent. */
  outcomes?: boolean;
  /** Which of the people with enough usable rows to keep; default all. */
  keep?: (person: Person) => boolean;
  /** Told how many of how many people were read. */
  progress?: ((done: number, total: number) => void) | undefined;
}

/** Model inputs for people, all at `recipe.steps` steps, since the models were trained at that padded length. */
export function makeBatch(people: Person[], recipe: NafldRecipe): NafldBatch {
  const { steps, width } = recipe;
  const features = new Float32Array(people.length * steps * width);
  const step = Int32Array.from(people, (person, i) => writeSequence(person, recipe, features, i * steps * width) - 1);
  return {
    people,
    feeds: {
      features: new Tensor('float32', features, [people.length, steps, width]),
      step: new Tensor('int32', step, [people.length]),
    },
  };
}

/** Everyone with enough usable rows in a data folder, by ascending id, as batches of model inputs; streaming. */
export async function* nafldBatches(
  folder: string,
  recipe: NafldRecipe,
  options: NafldBatchOptions = {},
): AsyncGenerator<NafldBatch> {
  const { size = 256, outcomes = false, keep, progress } = options;
  let people: Person[] = [];
  for await (const person of readPeople(folder, { outcomes, progress })) {
    if (!isUsable(person, recipe) || (keep && !keep(person))) continue;
    people.push(person);
    if (people.length === size) {
      yield makeBatch(people, recipe);
      people = [];
    }
  }
  if (people.length > 0) yield makeBatch(people, recipe);
}
