import { testUnless } from '../skips';

const { checks, clangFormat } = require('../tools/lint.cjs') as {
  checks: Record<string, (options: { write: boolean }) => { status: number; output: string }>;
  clangFormat: () => string | undefined;
};

describe('npm run lint', () => {
  for (const [name, check] of Object.entries(checks)) {
    const reason = name === 'clang-format' && clangFormat() === undefined ? 'no clang-format here' : undefined;
    testUnless(
      reason,
      `${name} finds nothing`,
      () => {
        const { status, output } = check({ write: false });
        expect(status === 0 ? '' : output).toBe('');
      },
      300000,
    );
  }
});
