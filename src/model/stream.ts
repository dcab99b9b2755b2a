import { setMaxListeners } from 'node:events';
import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import { whenAborted } from './abort';
import { checkInteger } from './options';

/** Batches in flight or waiting for the consumer when nothing else is asked for. */
const defaultConcurrency = 4;

/** A source of batches. */
export type Source<T> = AsyncIterable<T> | Iterable<T | PromiseLike<T>>;

type Slot<R> = { ready: boolean; promise: Promise<R> };

/**
 * Maps a source through an asynchronous function, in order. At most `concurrency` items are in flight or waiting to be
 * taken; the source is not read further ahead than that. Ending early (break, an error, an abort) aborts what is in flight
 * and closes the source.
 *
 * `closing`: ends as a `return` would, at once, also while the source is waited for.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE`, `ERR_HPFORMER_RANGE` for the arguments; the source's, the function's and the
 * signal's own errors pass through unchanged, after the results before them.
 */
export async function* mapInOrder<T, R>(
  source: Source<T>,
  map: (item: T, signal: AbortSignal) => Promise<R>,
  options: { concurrency?: number | undefined; signal?: AbortSignal | undefined; closing?: AbortSignal | undefined },
): AsyncGenerator<R, void, undefined> {
  const { concurrency = defaultConcurrency, signal, closing } = options;
  checkInteger('concurrency', concurrency, 1, 1024);
  const iterator = open(source);
  const inner = new AbortController();
  // `map` may listen to it for every item in flight: no leak, but Node would warn on stderr from the eleventh on.
  setMaxListeners(concurrency, inner.signal);
  const slots: Slot<R>[] = [];
  let pulling = false;
  let ended = false; // the source has no more
  let broken = false; // what it gave cannot be waited for
  let closed = false;
  let wake: () => void = () => {};

  const add = (promise: Promise<R>): void => {
    const slot = { ready: false, promise };
    const settle = () => {
      slot.ready = true;
      wake();
    };
    promise.then(settle, settle);
    slots.push(slot);
    wake();
  };
  const pull = (): void => {
    if (pulling || ended || broken || closed || slots.length >= concurrency) return;
    pulling = true;
    (async () => {
      let step: IteratorResult<T | PromiseLike<T>>;
      try {
        step = await iterator.next();
      } catch (error) {
        ended = true;
        throw error;
      }
      return { done: step.done === true, value: step.done === true ? undefined : await step.value };
    })().then(
      ({ done, value }) => {
        pulling = false;
        if (done) {
          ended = true;
          wake();
        } else if (!closed) {
          add(map(value as T, inner.signal));
          pull();
        }
      },
      (error) => {
        pulling = false;
        broken = true;
        if (!closed) add(Promise.reject(error));
      },
    );
  };

  const onAbort = () => {
    inner.abort(signal?.reason);
    wake();
  };
  const takeBack = whenAborted(signal, onAbort);
  closing?.addEventListener('abort', () => wake(), { once: true });
  try {
    if (signal?.aborted) onAbort();
    while (true) {
      if (inner.signal.aborted) throw inner.signal.reason;
      if (closing?.aborted) return;
      pull();
      const head = slots[0];
      if (head?.ready) {
        slots.shift();
        const result = await head.promise;
        pull();
        yield result;
      } else if (head === undefined && ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    closed = true;
    takeBack();
    inner.abort(signal?.aborted ? signal.reason : new Error('the stream was closed'));
    if (!ended) {
      // A source that is still waiting for its own next item cannot be waited for.
      const closing = (async () => iterator.return?.())().catch(() => {});
      if (!pulling) await closing;
    }
  }
}

function open<T>(source: Source<T>): {
  next(): Promise<IteratorResult<T>> | IteratorResult<T | PromiseLike<T>>;
  return?(): unknown;
} {
  const iterable = source as Partial<AsyncIterable<T> & Iterable<T>> | null | undefined;
  const iterator = iterable?.[Symbol.asyncIterator]?.() ?? iterable?.[Symbol.iterator]?.();
  if (iterator === undefined) {
    throw new HPformerError(
      'ERR_HPFORMER_TYPE',
      `stream: expected an (async) iterable of feeds, got ${describe(source)}`,
    );
  }
  return iterator as { next(): Promise<IteratorResult<T>>; return?(): unknown };
}
