// An HTTP service: POST /predict with JSON {"features": [[48 rows of 31 numbers], ...]} answers {"probabilities": [[...], ...]}.
// A client that goes away aborts its run; the event loop is never held up. node examples/http.cjs [port, default 8080]
'use strict';
const http = require('node:http');
const path = require('node:path');
const { HPformer, HPformerError, Tensor } = require(process.env.HPFORMER_MODULE ?? 'hpformer');

const largestBody = 8 << 20;
/** What is not the client's fault (bodies are bounded, so a limit is that of waiting runs: come again); the rest is about the input. */
const statuses = {
  ERR_HPFORMER_LIMIT: 503,
  ERR_HPFORMER_MEMORY: 503,
  ERR_HPFORMER_DEVICE: 503,
  ERR_HPFORMER_DISPOSED: 503,
  ERR_HPFORMER_INTERNAL: 500,
};

async function readJson(request) {
  let size = 0;
  const chunks = [];
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= largestBody) chunks.push(chunk); // the rest is read and let go, so that the client hears the answer
  }
  if (size > largestBody) throw Object.assign(new Error(`expected at most ${largestBody} bytes`), { status: 413 });
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw Object.assign(new Error('expected JSON'), { status: 400 });
  }
}

/** Nested lists as a tensor, every list as long as its neighbours; the package checks the shape itself and says what is wrong with it. */
function tensorOf(batch) {
  const even = (lists) => lists.every((list) => Array.isArray(list) && list.length === lists[0].length);
  const rows = Array.isArray(batch) && even(batch) ? batch.flat() : [];
  const values = rows.length > 0 && even(rows) ? rows.flat() : [];
  if (values.length === 0 || !values.every((value) => typeof value === 'number'))
    throw Object.assign(new Error('features: expected even lists [batch][steps][features] of numbers'), {
      status: 400,
    });
  return new Tensor('float32', Float32Array.from(values), [batch.length, batch[0].length, rows[0].length]);
}

/** A server that answers with a model; the caller listens and, after closing, disposes of the model. */
function serve(model) {
  const server = http.createServer(async (request, response) => {
    const gone = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) gone.abort(new Error('the client went away'));
    });
    const answer = (status, body) => {
      if (!server.listening) response.setHeader('connection', 'close'); // asked to end: no further request on it
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(`${JSON.stringify(body)}\n`);
    };
    try {
      if (request.url === '/health') return answer(200, { device: model.device });
      if (request.method !== 'POST' || request.url !== '/predict') return answer(404, { error: 'POST /predict' });
      const body = await readJson(request);
      const { probabilities } = await model.run({ features: tensorOf(body?.features) }, { signal: gone.signal });
      const [rows, labels] = probabilities.dims;
      const lists = Array.from({ length: rows }, (_, i) => [
        ...probabilities.data.subarray(i * labels, (i + 1) * labels),
      ]);
      return answer(200, { probabilities: lists });
    } catch (error) {
      if (gone.signal.aborted) return server.emit('aborted', error);
      const status = error.status ?? (error instanceof HPformerError ? (statuses[error.code] ?? 400) : 500);
      return answer(status, { error: error.message, code: error.code });
    }
  });
  return server;
}

async function main() {
  const model = await HPformer.load(path.join(__dirname, 'nafld-mortality', 'model.safetensors'));
  const server = serve(model);
  server.listen(Number(process.argv[2] ?? 8080), '127.0.0.1', () => {
    console.log(`listening on http://127.0.0.1:${server.address().port}/predict`);
  });
  server.on('aborted', (error) => console.log(`aborted: ${error.message}`));
  // Finishes what is running, then ends.
  process.once('SIGTERM', () => {
    server.close(() => model.dispose());
    server.closeIdleConnections();
  });
}

module.exports = { serve };
if (require.main === module) void main();
