import type { NativeDone, NativeFeed, NativeRequest, NativeSequenceOutputs } from './addon';

/**
 * A request as native code reads it: its values in the order of `Slot` in binding/addon/slots.h, undefined where absent.
 * Values at fixed places cost native code nothing to find, while a property by name costs an interned string and a look-up.
 *
 * @param done - called when the run is over; undefined for `runSync`.
 */
export function requestSlots(request: NativeRequest, done: NativeDone | undefined): readonly unknown[] {
  const { feed, second, out, outSecond } = request;
  const slots: unknown[] = [done, request.batch, request.rewrites, request.trace, request.step, request.readoutWeights];
  slots.push(request.logits, request.probabilities, request.head);
  addFeed(slots, feed);
  addOutputs(slots, out);
  // One-sequence models stop here; native code reads what is not there as undefined.
  if (second === undefined) return slots;
  addFeed(slots, second);
  addOutputs(slots, outSecond);
  return slots;
}

function addFeed(slots: unknown[], feed: NativeFeed): void {
  slots.push(feed.steps, feed.features ?? feed.tokens ?? feed.values, feed.lengths);
}

function addOutputs(slots: unknown[], out: NativeSequenceOutputs = { segmentsMax: 0 }): void {
  slots.push(out.segmentsMax, out.pooled, out.keys, out.segments, out.attention, out.segmentAttention);
  slots.push(out.intraAttention, out.embedded, out.segmentPool, out.extraSegment, out.intraSegment, out.layers);
  slots.push(out.encoded);
}
