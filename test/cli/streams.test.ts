/** The command's standard streams as a shell can leave them: full, closed, or with a reader that went away. */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describeUnless, notOn, root } from '../skips';

const main = path.join(root, 'dist/cli/main.js');
const model = path.join(root, 'examples/nafld-mortality');
const data = path.join(root, 'examples/nafld');
const full = 'stdout: cannot be written (ENOSPC: no space left on device)';

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-streams-'));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** A line of bash in which `$H` is the command; `$M`, `$D` a model and its data, `$T` a folder. */
function shell(line: string): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync('bash', ['-c', `H() { "$NODE" "$MAIN" "$@"; }; ${line}`], {
    encoding: 'utf8',
    env: { ...process.env, NODE: process.execPath, MAIN: main, M: model, D: data, T: folder },
  });
  return { code: status, out: stdout, err: stderr };
}

// The device that is always full is Linux's.
describeUnless(notOn('linux'), 'standard streams that cannot be written', () => {
  test.each([
    ['--help', 'hpformer'],
    ['--version', 'hpformer'],
    ['doctor --help', 'hpformer doctor'],
    ['inspect "$M"', 'hpformer inspect'],
    ['predict "$M" "$D"', 'hpformer predict'],
  ])('a full standard output of %s is said in one line', (args, where) => {
    expect(shell(`H ${args} >/dev/full`)).toEqual({
      code: 1,
      out: '',
      err: `${where}: ${full} (ERR_HPFORMER_FILE)\n`,
    });
  });

  test('and in JSON with --json', () => {
    const { code, err } = shell('H inspect "$M" --json >/dev/full');
    expect([code, JSON.parse(err)]).toEqual([1, { error: { code: 'ERR_HPFORMER_FILE', message: full } }]);
  });

  test('wrong usage stays wrong usage where nobody can be told', () => {
    for (const args of ['bench foo', 'foo', 'foo --json', '', 'predict'])
      expect([args, shell(`H ${args} 2>/dev/full`).code]).toEqual([args, 2]);
    expect(shell('{ H bench foo; echo $? >"$T/code"; } 2>&1 | true').code).toBe(0);
    expect(fs.readFileSync(path.join(folder, 'code'), 'utf8')).toBe('2\n');
  });

  test('work that is done is done, told or not', () => {
    expect(shell('H convert "$M/model.safetensors" "$T/m.onnx" 2>/dev/full').code).toBe(0);
    expect(fs.statSync(path.join(folder, 'm.onnx')).size).toBeGreaterThan(100_000);
  });

  test('a reader that goes away is no failure and no message', () => {
    for (const args of ['predict "$M" "$D"', 'inspect "$M" --json', '--help']) {
      const { code, out, err } = shell(`H ${args} | head -1; echo "\${PIPESTATUS[0]}"`);
      expect([args, code, err, out.split('\n').at(-2)]).toEqual([args, 0, '', '0']);
    }
  });

  test('closed streams are no streams at all', () => {
    expect(shell('H inspect "$M" <&- >&- 2>&-')).toEqual({ code: 0, out: '', err: '' });
  });

  test('a disk that is full in the middle: the file is named and nothing is left', () => {
    const place = path.join(folder, 'quota');
    fs.mkdirSync(place);
    const { code, err } = shell('ulimit -f 20; H predict "$M" "$D" --out "$T/quota/s.csv"');
    expect([code, err]).toEqual([
      1,
      `hpformer predict: ${place}/s.csv: cannot be written (EFBIG: file too large) (ERR_HPFORMER_FILE)\n`,
    ]);
    expect(fs.readdirSync(place)).toEqual([]);
  });

  test.each([
    [0, 'features.npy'],
    [20, 'features.npy'],
  ])('arrays on a disk with room for %d blocks: the file is named, nothing is left', (blocks, name) => {
    const place = path.join(folder, `arrays${blocks}`);
    expect(shell(`test -d "$T/stays" || H prepare synthetic --count 4 --out "$T/stays"`).code).toBe(0);
    expect(shell(`test -f "$T/n.json" || H prepare normalizer "$T/stays" --workers 0 --out "$T/n.json"`).code).toBe(0);
    const { code, err } = shell(
      `ulimit -f ${blocks}; H prepare arrays "$T/stays" --normalizer "$T/n.json" --workers 0 --out "$T/arrays${blocks}"`,
    );
    expect([code, err]).toEqual([
      1,
      `hpformer prepare: ${place}/${name}: cannot be written (EFBIG: file too large) (ERR_HPFORMER_FILE)\n`,
    ]);
    expect(fs.readdirSync(place)).toEqual([]);
  });
});

test('an interrupted command removes the file that it was writing', async () => {
  const place = path.join(folder, 'endless');
  const args = [main, 'prepare', 'synthetic', '--count', '100000000', '--out', place];
  const child = spawn(process.execPath, args, { stdio: 'ignore' });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  while (!fs.existsSync(place) || fs.readdirSync(place).length < 2) await new Promise((done) => setTimeout(done, 5));
  child.kill('SIGTERM');
  expect(await ended).toBe(143);
  expect(fs.readdirSync(place).filter((name) => !/^\d{4}$/.test(name))).toEqual([]);
});

test('scores for a folder that is not there: the first cause', () => {
  const { code, err } = shell('H predict "$M" "$D" --out "$T/none/x.csv"');
  expect(code).toBe(1);
  expect(err).toMatch(/^hpformer predict: .*none\/x\.csv: cannot be written \(ENOENT: no such file or directory\) \(/);
});
