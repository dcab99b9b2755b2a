/** bfloat16 on a CUDA device: what it costs on real patients (all of them on the CPU: test/trust/bfloat16.test.ts), and in traces. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { binaryMetrics } from '../../src/data/metrics';
import { csvRows, loadFixture, readFixture, rmsError } from '../golden/fixture';
import { cudaLibrary, describeUnless, root, withoutCudaLibrary } from '../skips';
import { useCudaLibrary } from './driver';

describeUnless(withoutCudaLibrary(), 'bfloat16 on cuda:0', () => {
  beforeAll(useCudaLibrary);

  test('the 200 people of expected.csv: logits within 1e-2, AUROC and AUPRC within 0.002 of the authors’ code', () => {
    const model = join(root, 'examples', 'nafld-mortality');
    const people = csvRows(readFileSync(join(model, 'expected.csv'), 'utf8'));
    expect(people.length).toBe(200);
    const asked = new Set(people.map(([id]) => id));
    const folder = mkdtempSync(join(tmpdir(), 'hpformer-cuda-'));
    try {
      for (const name of ['people', 'readings', 'diagnoses']) {
        const [header, ...lines] = gunzipSync(readFileSync(join(root, 'examples', 'nafld', `${name}.csv.gz`)))
          .toString()
          .trim()
          .split('\n');
        const kept = lines.filter((line) => asked.has(line.slice(0, line.indexOf(','))));
        writeFileSync(join(folder, `${name}.csv`), `${[header, ...kept].join('\n')}\n`);
      }
      const program = join(root, 'dist', 'cli', 'main.js');
      const out = join(folder, 'scores.csv');
      const { status, stderr } = spawnSync(
        process.execPath,
        [program, 'predict', model, folder, '--device', 'cuda:0', '--precision', 'bfloat16', '--out', out],
        { encoding: 'utf8', env: { ...process.env, HPFORMER_CUDA_LIBRARY: cudaLibrary() } },
      );
      expect({ status, stderr }).toMatchObject({
        status: 0,
        stderr: expect.stringMatching(/^200 people .* on cuda:0 /),
      });
      const scores = new Map(csvRows(readFileSync(out, 'utf8')).map(([id, score]) => [id, Number(score)]));
      const theirs = people.map(([, probability]) => Number(probability));
      const ours = people.map(([id]) => scores.get(id)!);
      const logit = (p: number) => Math.log(p / (1 - p));
      const exact = theirs.map(logit);
      const error = rmsError(ours.map(logit), Float64Array.from(exact));
      expect(error).toBeLessThanOrEqual(1e-2);
      expect(error).toBeGreaterThan(1e-5); // it was not float32
      const labels = people.map(([, , , label]) => Number(label));
      const [a, b] = [binaryMetrics(labels, ours), binaryMetrics(labels, theirs)];
      expect(Math.abs(a.auroc - b.auroc)).toBeLessThanOrEqual(0.002);
      expect(Math.abs(a.auprc - b.auprc)).toBeLessThanOrEqual(0.002);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each(['health_ihmp_real', 'lra_text_ln_mean'])(
    '%s: a trace has every stage, near those of the authors’ code',
    async (name) => {
      const fixture = readFixture(name);
      const model = await loadFixture(fixture, { device: 'cuda:0', precision: 'bfloat16' });
      const trace = (await model.trace(fixture.feeds)) as Record<
        string,
        { data: Float32Array; dims: readonly number[] }
      >;
      for (const { name: stage, values, dims } of [...fixture.exact, ...fixture.stages]) {
        const got = trace[stage]!;
        expect([stage, got.dims]).toEqual([stage, dims]);
        expect([stage, rmsError(got.data, values) <= 1e-2]).toEqual([stage, true]);
      }
      const { logits } = await model.run(fixture.feeds);
      expect(rmsError(trace.logits!.data, Float64Array.from(logits.data as Float32Array))).toBeLessThanOrEqual(1e-2);
      model.dispose();
    },
  );
});
