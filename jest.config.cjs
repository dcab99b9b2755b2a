'use strict';
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  transform: { '^.+\\.ts$': ['ts-jest', { tsconfig: '<rootDir>/tsconfig.json', diagnostics: false }] },
  reporters: [['default', { summaryThreshold: 40 }], '<rootDir>/test/reporter.cjs'],
  collectCoverageFrom: ['src/**/*.ts'],
  testTimeout: 60000,
  maxWorkers: 2,
};
