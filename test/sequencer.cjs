'use strict';
/**
 * The native programs come first, and searches by the clock: they take longest, and one of them alone at the end would keep a worker
 * idle.
 * Files whose tests name a CUDA driver come last. A process opens a driver once, and jest's workers take one file after
 * another: a file that follows would find a device that the machine does not have.
 */
const { readFileSync } = require('node:fs');
const { default: Sequencer } = require('@jest/test-sequencer');

module.exports = class extends Sequencer {
  async sort(tests) {
    const sorted = await super.sort(tests);
    const naming = (text) => new Set(sorted.filter(({ path }) => readFileSync(path, 'utf8').includes(text)));
    const first = new Set([...naming("'--show-only=json-v1'"), ...naming("searchByTheClock('")]);
    const last = naming('useCudaLibrary');
    return [...first, ...sorted.filter((test) => !first.has(test) && !last.has(test)), ...last];
  }
};
