/** A machine on which the addon does not load: one error with a code and advice, and nothing that throws where nothing may. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type * as Doctor from '../../../src/cli/doctor';
import type * as Errors from '../../../src/errors';
import type * as Hpformer from '../../../src/index';
import type * as Load from '../../../src/native/load';

let empty: string;
let before: string | undefined;
beforeEach(() => {
  // node-gyp-build looks below the folder that this names.
  before = process.env.HPFORMER_PREBUILD;
  empty = mkdtempSync(join(tmpdir(), 'hpformer-missing-'));
  process.env.HPFORMER_PREBUILD = empty;
  jest.resetModules();
});
afterEach(() => {
  if (before === undefined) delete process.env.HPFORMER_PREBUILD;
  else process.env.HPFORMER_PREBUILD = before;
  rmSync(empty, { recursive: true });
  jest.resetModules();
});

test('loading: ERR_HPFORMER_ADDON with the platform, the reason and what to do', () => {
  const { loadAddon, addonPath } = require('../../../src/native/load') as typeof Load;
  const { HPformerError } = require('../../../src/errors') as typeof Errors;
  expect(addonPath()).toBeUndefined();
  for (let i = 0; i < 2; i++) {
    let error: unknown;
    try {
      loadAddon();
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(HPformerError);
    const { code, message } = error as Errors.HPformerError;
    expect(code).toBe('ERR_HPFORMER_ADDON');
    expect(message).toMatch(
      new RegExp(
        `^addon: expected a binary for ${process.platform}-${process.arch}.*Node-API 8.*got: No native build was found.*npm rebuild hpformer --foreground-scripts$`,
      ),
    );
  }
});

test('devices: none is available, each with the reason; a model cannot be made', async () => {
  const { devices, HPformer, presets } = require('../../../src/index') as typeof Hpformer;
  expect(devices().map(({ id, available, precisions }) => [id, available, precisions])).toEqual([
    ['cpu', false, []],
    ['reference', false, []],
  ]);
  for (const { reason } of devices()) expect(reason).toContain('npm rebuild hpformer');
  await expect(HPformer.create(presets.mortality())).rejects.toMatchObject({ code: 'ERR_HPFORMER_ADDON' });
});

test('doctor: says so among its problems', () => {
  const { examine } = require('../../../src/cli/doctor') as typeof Doctor;
  const { addon, addonError, native, problems } = examine();
  expect([addon, native]).toEqual([null, null]);
  expect(addonError).toContain('npm rebuild hpformer');
  expect(problems[0]).toBe(addonError);
});
