/** One listener of ours on a signal, however many wait for it. */
import { getEventListeners } from 'node:events';
import { HPformer, presets, Tensor } from '../../../src';
import { untilAborted, whenAborted } from '../../../src/model/abort';

test('every action is called once, in order, and none that was taken back', () => {
  const controller = new AbortController();
  const { signal } = controller;
  const called: number[] = [];
  const takeBack = Array.from({ length: 30 }, (_, i) => whenAborted(signal, () => called.push(i)));
  expect(getEventListeners(signal, 'abort')).toHaveLength(1);
  for (let i = 3; i < 30; i++) takeBack[i]!();
  takeBack[29]!();
  controller.abort();
  expect(called).toEqual([0, 1, 2]);
  for (const take of takeBack) take();
  expect(getEventListeners(signal, 'abort')).toHaveLength(0);
});

test('a signal that nobody waits for any more has no listener, and can be waited for again', () => {
  const controller = new AbortController();
  whenAborted(controller.signal, () => {})();
  expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
  const action = jest.fn();
  whenAborted(controller.signal, action);
  controller.abort();
  expect(action).toHaveBeenCalledTimes(1);
  expect(() => whenAborted(undefined, action)()).not.toThrow();
});

test('an action may take others back, itself too', () => {
  const controller = new AbortController();
  const second = jest.fn();
  const takeBack = whenAborted(controller.signal, () => takeBack());
  whenAborted(controller.signal, second);
  controller.abort();
  expect(second).toHaveBeenCalledTimes(1);
});

test('untilAborted: the first of both counts', async () => {
  const controller = new AbortController();
  expect(await untilAborted(Promise.resolve(1), controller.signal)).toBe(1);
  expect(await untilAborted(Promise.resolve(2), undefined)).toBe(2);
  await expect(untilAborted(Promise.reject(new Error('own')), controller.signal)).rejects.toThrow('own');
  const never = untilAborted(new Promise(() => {}), controller.signal);
  controller.abort('why');
  await expect(never).rejects.toBe('why');
  await expect(untilAborted(new Promise(() => {}), controller.signal)).rejects.toBe('why');
});

test('many loads and runs that share a signal warn of nothing and leave no listener', async () => {
  const warnings: Error[] = [];
  const heard = (warning: Error) => warnings.push(warning);
  process.on('warning', heard);
  const controller = new AbortController();
  const { signal } = controller;
  const config = presets.image({ hidden: 16, heads: 4, layers: 1, head: { layers: [] } });
  const models = await Promise.all(
    Array.from({ length: 12 }, () => HPformer.create(config, { device: 'cpu', signal })),
  );
  const values = new Tensor('float32', new Float32Array(300), [1, 300]);
  const feeds = Array.from({ length: 40 }, () => ({ values }));
  await Promise.all(feeds.map((feed, i) => models[i % 12]!.run(feed, { signal })));
  for await (const { logits } of models[0]!.stream(feeds, { concurrency: 32, signal }))
    expect(logits.dims).toEqual([1, 10]);
  await new Promise((resolve) => setImmediate(resolve));
  process.off('warning', heard);
  expect(warnings).toEqual([]);
  expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  for (const model of models) model.dispose();
});
