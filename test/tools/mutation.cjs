// Mutation testing of what decides: configuration, checkpoint readers and writers, planner. Each mutant is one changed token; it is
// killed when a test that reaches it fails, or does not end. Survivors are printed with their place.
// node test/tools/mutation.cjs [number of mutants, default all] [seed of the choice, default 1] [file text to match]
'use strict';
const { fork } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const ts = require('typescript');
const { instrument } = require('./mutants.cjs');

const root = path.join(__dirname, '..', '..');
const [wanted = '0', seed = '1', match = ''] = process.argv.slice(2);
const mutated = /^src\/(config\/|checkpoint\/|model\/(plan|graph)\.ts$)/;
/** The tests that judge; each mutant meets those that reach it, the quickest first. */
const judges =
  /^test\/(unit\/(config|checkpoint|onnx)\/|unit\/model\/(costs|plan|graph|feeds)|trust\/malformed).*\.test\.ts$/;
/** A test without a mutant takes milliseconds to a few seconds; one that takes this much longer has no end. */
const patience = 5000;

const list = (folder) =>
  fs
    .readdirSync(path.join(root, folder), { recursive: true })
    .map((name) => `${folder}/${String(name).replaceAll(path.sep, '/')}`)
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'));

const { options } = ts.parseJsonConfigFileContent(
  ts.readConfigFile(path.join(root, 'tsconfig.json'), ts.sys.readFile).config,
  ts.sys,
  root,
);

/** Sources with all mutants in them and tests, as CommonJS in a folder of their own; answers mutants and test files. */
function compile(folder) {
  const mutants = [];
  for (const file of [...list('src'), ...list('test')]) {
    let text = fs.readFileSync(path.join(root, file), 'utf8');
    if (mutated.test(file)) {
      const made = instrument(file, text, mutants.length);
      mutants.push(...made.mutants);
      text = made.text;
    }
    const out = path.join(folder, file.replace(/\.ts$/, '.js'));
    fs.mkdirSync(path.dirname(out), { recursive: true });
    const { outputText } = ts.transpileModule(text, { fileName: file, compilerOptions: { ...options, noEmit: false } });
    fs.writeFileSync(out, outputText);
  }
  fs.copyFileSync(path.join(root, 'package.json'), path.join(folder, 'package.json'));
  for (const name of ['node_modules', 'build', 'dist', 'examples', 'test/fixtures'])
    if (fs.existsSync(path.join(root, name)) && !fs.existsSync(path.join(folder, name)))
      fs.symlinkSync(path.join(root, name), path.join(folder, name));
  return {
    mutants,
    files: list('test')
      .filter((file) => judges.test(file))
      .map((file) => file.replace(/\.ts$/, '.js')),
  };
}

/** A child that runs tests; `ask` answers its next message, or undefined when it ended or took too long. */
function startRunner(folder, files) {
  const child = fork(path.join(__dirname, 'mutationRunner.cjs'), [folder, ...files], {
    cwd: folder,
    env: { ...process.env, SEED: '1' },
    execArgv: ['--max-old-space-size=1024'],
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  let waiting;
  const answer = (message) => {
    waiting?.(message);
    waiting = undefined;
  };
  child.on('message', answer);
  child.on('exit', () => answer(undefined));
  child.on('error', () => answer(undefined));
  return {
    ask: (message, limit) =>
      new Promise((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) return resolve(undefined);
        const timer = setTimeout(() => child.kill('SIGKILL'), limit);
        waiting = (reply) => {
          clearTimeout(timer);
          resolve(reply);
        };
        child.send(message, (error) => error && answer(undefined));
      }),
    end: () => child.kill('SIGKILL'),
  };
}

/** Which tests meet a mutant, file by file; a mutant that is passed while a file loads has it loaded anew, and all its tests. */
function planOf(id, survey) {
  const plan = [];
  for (const { file, loading, tests } of survey) {
    const fresh = loading.has(id);
    const chosen = tests.filter(({ reached }) => fresh || reached.has(id)).sort((a, b) => a.time - b.time);
    if (chosen.length > 0)
      plan.push({
        file,
        fresh,
        tests: chosen.map(({ index }) => index),
        time: chosen.reduce((sum, { time }) => sum + time, 0),
      });
  }
  return plan.sort((a, b) => a.time - b.time);
}

function choose(mutants) {
  const matching = mutants.map((_, id) => id).filter((id) => mutants[id].file.includes(match));
  if (Number(wanted) === 0 || Number(wanted) >= matching.length) return matching;
  let state = Number(seed) >>> 0 || 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Array.from({ length: Number(wanted) }, () => matching.splice(Math.floor(random() * matching.length), 1)[0]);
}

async function main(folder) {
  const { mutants, files } = compile(folder);
  const first = startRunner(folder, files);
  const told = await first.ask('survey', 1200000);
  first.end();
  if (!Array.isArray(told)) throw new Error(told?.error ?? 'the tests did not end without any change');
  const survey = told.map(({ file, loading, tests }) => ({
    file,
    loading: new Set(loading),
    tests: tests.map((test) => ({ ...test, reached: new Set(test.reached) })),
  }));
  const total = survey.reduce((sum, { tests }) => sum + tests.length, 0);
  const chosen = choose(mutants);
  console.log(
    `${total} tests of ${files.length} files judge ${chosen.length} of ${mutants.length} mutants, seed ${seed}`,
  );

  const counts = { killed: 0, endless: 0, survived: 0, unreached: 0 };
  const started = Date.now();
  const queue = [...chosen];
  let tried = 0;
  const survivors = [];
  const work = async () => {
    let runner = startRunner(folder, files);
    const again = () => {
      runner.end();
      runner = startRunner(folder, files);
    };
    while (queue.length > 0) {
      const id = queue.shift();
      const plan = planOf(id, survey);
      const { file, line, column, was, becomes } = mutants[id];
      const time = plan.reduce((sum, each) => sum + each.time, 0);
      const ask = () => runner.ask({ id, plan }, patience + 5 * time);
      let verdict = plan.length === 0 ? {} : await ask();
      // A machine that was busy or asleep is no mutant without an end: those are asked twice, in a process of their own.
      if (verdict === undefined || verdict.spoiled) {
        again();
        verdict = await ask();
        if (verdict?.spoiled) again();
      }
      if (verdict === undefined) {
        counts.endless++;
        counts.killed++;
        again();
      } else if (verdict.by !== undefined) {
        counts.killed++;
      } else {
        counts.survived++;
        if (plan.length === 0) counts.unreached++;
        const what = `${file}:${line}:${column}: ${was} → ${becomes}`.replace(/\s+/g, ' ');
        survivors.push(what);
        console.log(`survived${plan.length === 0 ? ', reached by no test' : ''}: ${what}`);
      }
      if (++tried % 200 === 0)
        console.log(
          `${tried} of ${chosen.length}, ${counts.killed} killed, ${Math.round((Date.now() - started) / 1000)} s`,
        );
    }
    runner.end();
  };
  await Promise.all(Array.from({ length: Number(process.env.JOBS ?? 2) }, work));

  for (const part of ['src/config/', 'src/checkpoint/', 'src/model/']) {
    const all = chosen.filter((id) => mutants[id].file.startsWith(part)).length;
    const alive = survivors.filter((what) => what.startsWith(part)).length;
    if (all > 0)
      console.log(`${part}: ${all - alive} of ${all} killed (${((100 * (all - alive)) / all).toFixed(1)} %)`);
  }
  const share = ((100 * counts.killed) / chosen.length).toFixed(1);
  console.log(
    `${counts.killed} of ${chosen.length} mutants killed (${share} %), ${counts.endless} of them by not ending, ${counts.unreached} reached by no test; ${mutants.length} there are, seed ${seed}`,
  );
  if (counts.killed < 0.85 * chosen.length) process.exitCode = 1;
}

const folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-mutation-')));
main(folder)
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => fs.rmSync(folder, { recursive: true, force: true }));
