/** Reading and writing files: every failure is an HPformerError in the caller's words. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  fileError,
  makeFolder,
  readJson,
  readText,
  readWhole,
  reasonOf,
  TextWriter,
  writeAtomically,
  writePlainly,
} from '../../src/files';
import { notOn, testUnless } from '../skips';

let folder: string;
const at = (name: string) => path.join(folder, name);
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-files-'));
  fs.writeFileSync(at('text'), '{"a": 1}');
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

const refused = (message: string) => ({ code: 'ERR_HPFORMER_FILE', message });

test.each<[string, (file: string) => Promise<unknown>, string]>([
  ['readWhole', readWhole, 'cannot be read (ENOENT: no such file or directory)'],
  ['readText', readText, 'cannot be read (ENOENT: no such file or directory)'],
  ['readJson', readJson, 'cannot be read (ENOENT: no such file or directory)'],
  ['writeAtomically', (file) => writeAtomically(file, ''), 'cannot be written (ENOENT: no such file or directory)'],
  ['writePlainly', (file) => writePlainly(file, ''), 'cannot be written (ENOENT: no such file or directory)'],
])('%s names the path once, without the system call', async (_, action, message) => {
  const file = at('none/file');
  await expect(action(file)).rejects.toMatchObject(refused(`${file}: ${message}`));
});

testUnless(notOn('linux'), 'what is replaced keeps its rights, and a link its place', async () => {
  fs.writeFileSync(at('scores'), 'old', { mode: 0o600 });
  fs.symlinkSync(at('scores'), at('link'));
  await writeAtomically(at('link'), 'new');
  expect(fs.lstatSync(at('link')).isSymbolicLink()).toBe(true);
  expect(fs.readFileSync(at('scores'), 'utf8')).toBe('new');
  expect(fs.statSync(at('scores')).mode & 0o777).toBe(0o600);
  expect(fs.readdirSync(folder).sort()).toEqual(['link', 'scores', 'text']);
});

testUnless(notOn('linux'), 'a pipe that nobody writes to is refused at once', async () => {
  expect(spawnSync('mkfifo', [at('pipe')]).status).toBe(0);
  await expect(readWhole(at('pipe'))).rejects.toMatchObject(
    refused(`${at('pipe')}: expected a file, got something else`),
  );
});

test('what is read is what was written', async () => {
  await writeAtomically(at('a'), Uint8Array.of(1, 2));
  expect(Array.from(await readWhole(at('a')))).toEqual([1, 2]);
  await writePlainly(at('b'), 'ä');
  expect(await readText(at('b'))).toBe('ä');
  expect(await readJson(at('text'))).toEqual({ a: 1 });
  expect(fs.readdirSync(folder).sort()).toEqual(['a', 'b', 'text']);
});

test('readWhole takes regular files only, readJson JSON only', async () => {
  await expect(readWhole(folder)).rejects.toMatchObject(refused(`${folder}: expected a file, got a directory`));
  await expect(readWhole('/dev/null')).rejects.toMatchObject(refused('/dev/null: expected a file, got something else'));
  await writePlainly(at('bad'), '{');
  await expect(readJson(at('bad'), 'a list')).rejects.toMatchObject({
    message: expect.stringMatching(/bad: expected a list \(.*JSON.*\)$/),
  });
});

testUnless(notOn('linux'), 'makeFolder ends where a folder that exists cannot hold another', async () => {
  for (const name of ['/proc/hpformer', '/proc/hpformer/below'])
    await expect(makeFolder(name)).rejects.toMatchObject(
      refused(`${name}: cannot be made (/proc cannot hold a folder)`),
    );
});

test('makeFolder makes what is missing and refuses a file in the way', async () => {
  await makeFolder(at('x/y'));
  await makeFolder(at('x/y'));
  expect(fs.statSync(at('x/y')).isDirectory()).toBe(true);
  await expect(makeFolder(at('text'))).rejects.toMatchObject(
    refused(`${at('text')}: cannot be made (EEXIST: file already exists)`),
  );
});

describe('TextWriter', () => {
  test('writes pieces of any size in order; a settled one is in the file', async () => {
    const writer = new TextWriter(at('lines'));
    await writer.write('first\n', true);
    expect(await readText(at('lines'))).toBe('first\n');
    const long = 'x'.repeat(100_000);
    for (let i = 0; i < 5; i++) await writer.write(`${i}${long}\n`);
    await writer.end();
    expect((await readText(at('lines'))).split('\n').map((line) => line[0])).toEqual([
      'f',
      '0',
      '1',
      '2',
      '3',
      '4',
      undefined,
    ]);
  });

  // A device that is always full is Linux's.
  testUnless(notOn('linux'), 'a full disk is an error of the write or the end, with its cause', async () => {
    for (const settled of [true, false]) {
      const writer = new TextWriter('/dev/full', 'a');
      const done = writer.write('x', settled).then(() => writer.end());
      await expect(done).rejects.toMatchObject(
        refused('/dev/full: cannot be written (ENOSPC: no space left on device)'),
      );
      await writer.abandon();
    }
  });

  test('given up at once, nothing is made after abandon has come back', async () => {
    const writer = new TextWriter(at('given-up'));
    await writer.abandon();
    fs.rmSync(at('given-up'), { force: true });
    await new Promise((done) => setTimeout(done, 20));
    expect(fs.existsSync(at('given-up'))).toBe(false);
  });

  test('appends', async () => {
    const writer = new TextWriter(at('text'), 'a');
    await writer.write('!');
    await writer.end();
    expect(await readText(at('text'))).toBe('{"a": 1}!');
  });

  test.each(['write', 'end'] as const)(
    'a file that cannot be made is an error of %s, never an event',
    async (method) => {
      const writer = new TextWriter(at('none/lines'));
      const message = `${at('none/lines')}: cannot be written (ENOENT: no such file or directory)`;
      const done = method === 'write' ? writer.write('x', true) : writer.end();
      await expect(done).rejects.toMatchObject(refused(message));
      await expect(writer.end()).rejects.toMatchObject(refused(message));
      await writer.abandon();
    },
  );
});

test('reasonOf takes anything that can be thrown', () => {
  expect(reasonOf(new Error('a, b'))).toBe('a, b');
  expect(reasonOf('text')).toBe('text');
  expect(reasonOf(null)).toBe('null');
  expect(reasonOf({ message: 'of another realm' })).toBe('of another realm');
  expect(fileError('f', 'read', undefined).message).toBe('f: cannot be read (undefined)');
});
