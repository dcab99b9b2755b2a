// Runs test files under one mutant after another in one process: describe, test, hooks and `each` as jest has them, with jest's
// own `expect`. A child of mutation.cjs; every test file has modules of its own, as under jest.
// node test/tools/mutationRunner.cjs <folder of compiled files> <test file ...>; speaks over IPC.
'use strict';
const path = require('node:path');
const { expect } = require('expect');
const { bind } = require('jest-each');

const [folder, ...files] = process.argv.slice(2);
let active = -1;
/** Mutants passed since it was made empty. */
let reached = new Set();
let recording = false;
globalThis.__m = (id) => {
  if (recording) reached.add(id);
  return id === active;
};

const hookNames = ['beforeAll', 'afterAll', 'beforeEach', 'afterEach'];
let block;
const newBlock = (name, parent) => ({
  name,
  parent,
  tests: [],
  blocks: [],
  hooks: Object.fromEntries(hookNames.map((hook) => [hook, []])),
});
globalThis.expect = expect;
globalThis.describe = (name, body) => {
  block = newBlock(name, block);
  block.parent.blocks.push(block);
  body();
  block = block.parent;
};
globalThis.test = (name, body) => {
  block.tests.push({ name, body, block });
};
globalThis.test.skip = () => undefined;
globalThis.describe.skip = () => undefined;
globalThis.it = globalThis.test;
globalThis.describe.each = bind(globalThis.describe, false);
globalThis.test.each = bind(globalThis.test);
for (const hook of hookNames) globalThis[hook] = (body) => block.hooks[hook].push(body);

const call = (body) =>
  body.length > 0
    ? new Promise((resolve, reject) => {
        body((error) => (error ? reject(error) : resolve()));
      })
    : body();

/** The tests of a file from modules that are loaded anew. */
function load(file) {
  for (const key of Object.keys(require.cache))
    if (key.startsWith(folder) && !key.endsWith('.node') && !key.includes('node_modules')) delete require.cache[key];
  block = newBlock('', undefined);
  const top = block;
  require(path.join(folder, file));
  const all = [];
  const walk = (at) => {
    all.push(...at.tests);
    at.blocks.forEach(walk);
  };
  walk(top);
  return all;
}

const chain = (at) => (at ? [...chain(at.parent), at] : []);

/** Runs some tests of a file with their hooks, until one fails; answers the index of that one, or undefined. */
async function runTests(tests, wanted, after = () => undefined) {
  const open = [];
  let failed;
  try {
    for (const index of wanted) {
      const { body, block: own } = tests[index];
      failed = index;
      const started = process.hrtime.bigint();
      const blocks = chain(own);
      for (const each of blocks) {
        if (open.includes(each)) continue;
        open.push(each);
        for (const hook of each.hooks.beforeAll) await call(hook);
      }
      for (const each of blocks) for (const hook of each.hooks.beforeEach) await call(hook);
      await call(body);
      for (const each of [...blocks].reverse()) for (const hook of each.hooks.afterEach) await call(hook);
      after(index, Number(process.hrtime.bigint() - started) / 1e6);
      failed = undefined;
    }
  } catch (error) {
    lastError = error;
    return failed;
  } finally {
    for (const each of open.reverse())
      for (const hook of each.hooks.afterAll) await Promise.resolve(call(hook)).catch(() => undefined);
  }
  return undefined;
}
let lastError;

/** What every test reaches and how long it takes: one list for each file. What hooks reach counts for all of their tests. */
async function survey() {
  const found = [];
  for (const file of files) {
    recording = true;
    reached = new Set();
    const tests = load(file);
    const loading = [...reached];
    reached = new Set();
    const seen = [];
    const hooked = new Set();
    const failed = await runTests(
      tests,
      tests.map((_, index) => index),
      (index, time) => {
        seen.push({ index, time, reached: [...reached] });
        reached = new Set();
      },
    );
    recording = false;
    if (failed !== undefined)
      throw new Error(`${file}: "${tests[failed].name}" fails without any change: ${lastError?.stack}`);
    // A beforeAll runs with the first of its tests, and what it reaches was counted there only.
    for (const { index, reached: ids } of seen)
      if (chain(tests[index].block).some((each) => each.hooks.beforeAll.length > 0))
        for (const id of ids) hooked.add(id);
    found.push({
      file,
      loading,
      tests: seen.map(({ index, time, reached: ids }) => {
        const own = chain(tests[index].block).some((each) => each.hooks.beforeAll.length > 0);
        return { index, time, reached: own ? [...new Set([...ids, ...hooked])] : ids };
      }),
    });
  }
  return found;
}

const loaded = new Map();
/** One mutant against the tests that reach it: the test that fails, or undefined. `plan`: file, fresh, test indices. */
async function judge(id, plan) {
  for (const { file, fresh, tests: wanted } of plan) {
    active = id;
    let tests;
    try {
      if (fresh) tests = load(file);
      else {
        active = -1;
        if (!loaded.has(file)) loaded.set(file, load(file));
        active = id;
        tests = loaded.get(file);
      }
    } catch {
      active = -1;
      loaded.clear();
      return { by: `${file}: loading` };
    }
    const failed = await runTests(tests, wanted);
    active = -1;
    if (fresh) loaded.clear();
    if (failed === undefined) continue;
    // The same test must pass again without the mutant, else the mutant spoiled what the next ones would meet.
    if (!fresh) {
      const again = await runTests(tests, [failed]);
      return { by: `${file}: ${tests[failed].name}`, spoiled: again !== undefined };
    }
    return { by: `${file}: ${tests[failed].name}` };
  }
  return {};
}

process.on('unhandledRejection', () => undefined);
process.on('message', async (message) => {
  if (message === 'survey') {
    process.send(await survey().catch((error) => ({ error: error.message })));
  } else {
    const { id, plan } = message;
    process.send({ id, ...(await judge(id, plan)) });
  }
});
