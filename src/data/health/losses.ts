import { HPformerError } from '../../errors';
import { elementCount } from '../../tensor/shape';
import { checkFields } from '../check';
import { type Compat, checkCompat } from './labels';

/** Numbers with a shape: a tensor, or data and dims. */
export interface Shaped {
  readonly data: ArrayLike<number>;
  readonly dims: readonly number[];
}

const epsilon = 1e-7;

function check(where: string, tensor: Shaped, rank: number, dims?: readonly (number | undefined)[]): void {
  checkFields(where, tensor, { data: 'numbers', dims: 'numberArray' });
  const fits =
    tensor.dims.length === rank &&
    (dims === undefined || dims.every((d, i) => d === undefined || d === tensor.dims[i])) &&
    elementCount(where, tensor.dims) === tensor.data.length;
  if (!fits) {
    const wanted = (dims ?? new Array<undefined>(rank).fill(undefined)).map((d) => d ?? '?').join(', ');
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `${where}: expected [${wanted}], got [${tensor.dims.join(', ')}] with ${tensor.data.length} elements`,
    );
  }
}

/**
 * In-hospital mortality (and phenotyping): −(1/B) Σ [y ln(p + 1e-7) + (1 − y) ln(1 − p + 1e-7)].
 *
 * @param labels `[B, labels]` of 0 and 1.
 * @param probabilities `[B, labels]`.
 * @throws HPformerError `ERR_HPFORMER_TYPE` for anything but data and dims, `ERR_HPFORMER_SHAPE` for dims that do not fit.
 */
export function inHospitalMortalityLoss(labels: Shaped, probabilities: Shaped): number {
  check('loss: labels', labels, 2);
  check('loss: probabilities', probabilities, 2, labels.dims);
  let sum = 0;
  for (let i = 0; i < labels.data.length; i++) {
    const y = labels.data[i]!;
    const p = probabilities.data[i]!;
    sum += y * Math.log(p + epsilon) + (1 - y) * Math.log(1 - p + epsilon);
  }
  return -sum / labels.dims[0]!;
}

/**
 * Decompensation: the same over the steps of each stay, p multiplied by the mask, divided by the stay's number of valid steps + 1e-7,
 * then by the batch.
 *
 * @param labels `[B, L, labels]`.
 * @param probabilities `[B, L, labels]`.
 * @param mask `[B, L]` of 0 and 1.
 * @throws HPformerError as {@link inHospitalMortalityLoss}.
 */
export function decompensationLoss(labels: Shaped, probabilities: Shaped, mask: Shaped): number {
  check('loss: labels', labels, 3);
  check('loss: probabilities', probabilities, 3, labels.dims);
  check('loss: mask', mask, 2, labels.dims.slice(0, 2));
  const [batch, steps, width] = labels.dims as [number, number, number];
  let total = 0;
  for (let b = 0; b < batch; b++) {
    let valid = 0;
    for (let t = 0; t < steps; t++) valid += mask.data[b * steps + t]!;
    let sum = 0;
    for (let t = 0; t < steps; t++) {
      const m = mask.data[b * steps + t]!;
      for (let c = 0; c < width; c++) {
        const i = (b * steps + t) * width + c;
        const y = labels.data[i]!;
        const p = probabilities.data[i]! * m;
        sum += y * Math.log(p + epsilon) + (1 - y) * Math.log(1 - p + epsilon);
      }
    }
    total += sum / (valid + epsilon);
  }
  return -total / batch;
}

/**
 * Length of stay. `published`: as the authors run it, cross entropy of the masked probabilities with time as the class axis, divided by
 * 10·(Σ mask + 1e-7). `corrected` (default): −Σ mask·y·ln(p + 1e-7) over steps and classes, divided by Σ mask + 1e-7: the usual cross
 * entropy of a step.
 *
 * @param labels `[B, L, 10]` one-hot.
 * @param probabilities `[B, L, 10]`.
 * @param mask `[B, L]` of 0 and 1.
 * @throws HPformerError as {@link inHospitalMortalityLoss}; `ERR_HPFORMER_RANGE` for another compat.
 */
export function lengthOfStayLoss(
  labels: Shaped,
  probabilities: Shaped,
  mask: Shaped,
  compat: Compat = 'corrected',
): number {
  checkCompat('length-of-stay loss', compat);
  check('loss: labels', labels, 3);
  check('loss: probabilities', probabilities, 3, labels.dims);
  check('loss: mask', mask, 2, labels.dims.slice(0, 2));
  const [batch, steps, classes] = labels.dims as [number, number, number];
  let valid = 0;
  for (let i = 0; i < mask.data.length; i++) valid += mask.data[i]!;
  let sum = 0;
  for (let b = 0; b < batch; b++) {
    for (let c = 0; c < classes; c++) {
      const at = (t: number): number => (b * steps + t) * classes + c;
      if (compat === 'published') {
        let top = Number.NEGATIVE_INFINITY;
        for (let t = 0; t < steps; t++) top = Math.max(top, probabilities.data[at(t)]! * mask.data[b * steps + t]!);
        let exponentials = 0;
        for (let t = 0; t < steps; t++) {
          exponentials += Math.exp(probabilities.data[at(t)]! * mask.data[b * steps + t]! - top);
        }
        const logSum = top + Math.log(exponentials);
        for (let t = 0; t < steps; t++) {
          sum += labels.data[at(t)]! * (probabilities.data[at(t)]! * mask.data[b * steps + t]! - logSum);
        }
      } else {
        for (let t = 0; t < steps; t++) {
          sum += mask.data[b * steps + t]! * labels.data[at(t)]! * Math.log(probabilities.data[at(t)]! + epsilon);
        }
      }
    }
  }
  return -sum / ((compat === 'published' ? 10 : 1) * (valid + epsilon));
}
