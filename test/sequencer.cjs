'use strict';
/**
 * Files whose tests name a CUDA driver come last. A process opens a driver once, and jest's workers take one file after
 * another: a file that follows would find a device that the machine does not have.
 */
const { readFileSync } = require('node:fs');
const { default: Sequencer } = require('@jest/test-sequencer');

module.exports = class extends Sequencer {
  async sort(tests) {
    const sorted = await super.sort(tests);
    const last = new Set(sorted.filter(({ path }) => readFileSync(path, 'utf8').includes('useCudaLibrary')));
    return [...sorted.filter((test) => !last.has(test)), ...last];
  }
};
