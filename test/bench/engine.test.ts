/** `node bench/run.cjs engine`: instructions by kind, the bound that they give, and models that are checked before they are timed. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { boundOf, countKinds, disassembly, kindOf } from '../../bench/src/instructions';
import { describeUnless, root } from '../skips';

test('what an instruction is', () => {
  const kinds = (lines: string[]) =>
    lines.map((line) => kindOf(line.split(' ')[0]!, line.slice(line.indexOf(' ') + 1)));
  const multiplies = [
    'vfmadd231ps %ymm1,%ymm2,%ymm3',
    'mulps %xmm0,%xmm1',
    'vfnmadd132ss (%rax),%xmm1,%xmm2',
    'vmulps 0x20(%rdi),%zmm0,%zmm1',
  ];
  expect(kinds(multiplies)).toEqual(multiplies.map(() => 'multiply'));
  const others = [
    'vaddps %ymm1,%ymm2,%ymm3',
    'vpslld $0x17,%ymm1,%ymm1',
    'vbroadcastss %xmm0,%ymm0',
    'vshufps $0x0,%ymm1,%ymm1,%ymm2',
    'divps %xmm1,%xmm0',
  ];
  expect(kinds(others)).toEqual(others.map(() => 'other'));
  const none = [
    'vmovups (%rax),%ymm0',
    'vmovaps %ymm1,%ymm2',
    'vbroadcastss (%rsi),%ymm0',
    'mov %rax,%rbx',
    'imul %rax,%rbx',
    'vzeroupper ',
  ];
  expect(kinds(none)).toEqual(none.map(() => 'none'));
});

const listing = `
0000000000001000 <loop>:
    1000:\tvmovups (%rax),%ymm0
    1004:\tvfmadd231ps (%rbx),%ymm0,%ymm1
    1009:\tvaddps %ymm1,%ymm2,%ymm2
    100d:\tcall   2000 <other>
    1012:\tret
`;

test("callgrind's counts by kind: own instructions of this program, not what they call, nothing of other objects", () => {
  const callgrind = [
    'positions: instr line',
    'ob=/somewhere/build/probe',
    'fl=loop.cc',
    'fn=loop',
    '0x1000 7 10',
    '0x1004 8 10',
    '0x1009 9 5',
    '0x100d 10 2',
    'cob=/lib/libm.so.6',
    'cfn=exp',
    'calls=2 0x1004 0',
    '0x100d 10 9000',
    'ob=/lib/libm.so.6',
    'fn=exp',
    '0x1004 1 77',
  ].join('\n');
  expect(countKinds(callgrind, 'probe', disassembly(listing))).toEqual({ all: 104, multiply: 10, other: 5 });
});

test('the bound: the slowest of multiplications, the rest, and both together', () => {
  const rates = { multiplyRate: 2, addRate: 4, bothRate: 5 };
  expect(boundOf({ multiply: 8e6, other: 0 }, rates)).toBe(4);
  expect(boundOf({ multiply: 1e6, other: 8e6 }, rates)).toBe(2);
  expect(boundOf({ multiply: 8e6, other: 14e6 }, rates)).toBeCloseTo(4.4, 12);
});

test('a part that does not exist is wrong usage, a task too', () => {
  const runner = join(root, 'bench', 'run.cjs');
  const { status, stderr } = spawnSync(process.execPath, [runner, 'nonsense'], { encoding: 'utf8' });
  expect([status, stderr]).toEqual([
    2,
    expect.stringContaining('peers|wasm|attention|efficiency|engine|native|callgrind'),
  ]);
});

const probe = join(root, 'build', 'test', 'native', 'hpformer_native');
describeUnless(
  existsSync(probe) ? undefined : 'the kernel probe was not built (no native tests)',
  'whole models',
  () => {
    const models = ['decompensation', 'text', 'image', 'long'];
    test('each agrees with the reference; rates of the loops are there', () => {
      const { status, stdout } = spawnSync(probe, ['stack', '1'], { encoding: 'utf8' });
      const { rows } = JSON.parse(stdout) as { rows: Record<string, number | string | boolean>[] };
      expect(rows.map(({ model }) => model)).toEqual(models);
      for (const row of rows) {
        expect(row.checked).toBe(true);
        for (const name of ['ms', 'multiplyRate', 'addRate', 'bothRate']) expect(row[name]).toBeGreaterThan(0);
      }
      expect(status).toBe(0);
    });

    test('names: listed, and refused where unknown', () => {
      expect(spawnSync(probe, ['count-stack', 'list'], { encoding: 'utf8' }).stdout.trim().split('\n')).toEqual(models);
      expect(spawnSync(probe, ['stack', '1', 'nonsense']).status).toBe(2);
    });
  },
);
