'use strict';
// Child processes count what they run (test/tools/coverage.sh); set here, jest's own process does not.
if (process.env.HPFORMER_CHILD_COVERAGE) process.env.NODE_V8_COVERAGE = process.env.HPFORMER_CHILD_COVERAGE;
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  transform: { '^.+\\.ts$': ['ts-jest', { tsconfig: '<rootDir>/tsconfig.json', diagnostics: false }] },
  testSequencer: '<rootDir>/test/sequencer.cjs',
  reporters: [['default', { summaryThreshold: 40 }], '<rootDir>/test/reporter.cjs'],
  collectCoverageFrom: ['src/**/*.ts'],
  testTimeout: 180000,
  maxWorkers: 2,
};
