/** Why a signal was aborted; the default reason where the signal is of a kind that has none. */
export function reasonOf(signal: AbortSignal): unknown {
  return signal.reason === undefined ? new DOMException('This operation was aborted', 'AbortError') : signal.reason;
}

/** Throws the reason of a signal that is aborted already. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw reasonOf(signal);
}

/** What to do when a signal aborts, and the one listener that does all of it. */
interface Waiting {
  readonly actions: Set<() => void>;
  readonly listener: () => void;
}

const waitings = new WeakMap<AbortSignal, Waiting>();

/**
 * Calls `action` once when a signal aborts. However many runs share a signal, it has one listener of ours: Node would warn of a leak
 * on stderr from the eleventh on.
 *
 * @returns takes the action back.
 */
export function whenAborted(signal: AbortSignal | undefined, action: () => void): () => void {
  if (signal === undefined) return () => {};
  let waiting = waitings.get(signal);
  if (waiting === undefined) {
    const actions = new Set<() => void>();
    const listener = (): void => {
      waitings.delete(signal);
      for (const act of [...actions]) act();
    };
    waiting = { actions, listener };
    waitings.set(signal, waiting);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { actions, listener } = waiting;
  actions.add(action);
  return () => {
    if (!actions.delete(action) || actions.size > 0 || waitings.get(signal)?.actions !== actions) return;
    waitings.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}

/** A promise that an abort rejects at once with the signal's reason. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const takeBack = whenAborted(signal, () => reject(reasonOf(signal)));
    if (signal.aborted) reject(reasonOf(signal));
    promise.then(resolve, reject).finally(takeBack);
  });
}
