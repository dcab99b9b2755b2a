#!/usr/bin/env node
// `node bench/screenshots.cjs PAGE.html … [--folder FOLDER]`: the pages of `hpformer bench --html` as PNG files, whole length, at desktop
// (1280 px) and phone (390 px) width, light and dark, drawn by an installed Chromium (or the one that CHROMIUM names); and what is wrong with
// their layout: wider than the window, text cut off or on other text. Anything wrong is exit code 1. Without a Chromium: one line, exit 0.
'use strict';
const { spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { parseArgs } = require('node:util');

const widths = { desktop: 1280, phone: 390 };
const schemes = ['light', 'dark'];

/** An installed Chromium, or undefined. */
function chromium() {
  const names = [process.env.CHROMIUM, 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
  return names.find((name) => name && spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0);
}

/** Runs in the page: what its layout has wrong, in words. */
function problems() {
  const found = [];
  const wide = document.documentElement.scrollWidth;
  if (wide > window.innerWidth) found.push(`the page is ${wide} px wide in a window of ${window.innerWidth}`);
  for (const svg of document.querySelectorAll('svg')) {
    const name = svg.getAttribute('aria-label');
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
    for (const [i, [text, box]] of texts.entries()) {
      if (
        box.left < frame.left - 1 ||
        box.right > frame.right + 1 ||
        box.top < frame.top - 1 ||
        box.bottom > frame.bottom + 1
      )
        found.push(`${name}: "${text}" leaves the chart`);
      for (const [other, { left, right, top, bottom }] of texts.slice(0, i)) {
        // Boxes hold room above and below the letters: a third of their height may touch.
        const across = Math.min(box.right, right) - Math.max(box.left, left);
        const down = Math.min(box.bottom, bottom) - Math.max(box.top, top);
        if (across > 1 && down > Math.min(box.height, bottom - top) / 3)
          found.push(`${name}: "${text}" lies on "${other}"`);
      }
    }
  }
  return found;
}

/** A Chromium that is told what to do through a pipe (the DevTools protocol). */
function start(program) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-chromium-'));
  const args = [
    '--headless',
    '--disable-gpu',
    '--hide-scrollbars',
    '--no-first-run',
    '--remote-debugging-pipe',
    `--user-data-dir=${profile}`,
  ];
  if (process.getuid?.() === 0) args.push('--no-sandbox'); // root has none
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const waiting = new Map();
  const listeners = new Map();
  let last = 0;
  let rest = '';
  const fail = (error) => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  child.on('error', fail);
  child.on('exit', (code) => fail(new Error(`${program} ended with code ${code}`)));
  child.stdio[4].setEncoding('utf8').on('data', (text) => {
    const messages = (rest + text).split('\0');
    rest = messages.pop();
    for (const message of messages.map((one) => JSON.parse(one))) {
      if (message.id === undefined) listeners.get(message.method)?.(message.params);
      else {
        const { resolve, reject } = waiting.get(message.id) ?? {};
        waiting.delete(message.id);
        if (message.error) reject?.(new Error(message.error.message));
        else resolve?.(message.result);
      }
    }
  });
  return {
    send: (method, params = {}, sessionId = undefined) =>
      new Promise((resolve, reject) => {
        last += 1;
        waiting.set(last, { resolve, reject });
        child.stdio[3].write(`${JSON.stringify({ id: last, method, params, sessionId })}\0`);
      }),
    next: (method) => new Promise((resolve) => listeners.set(method, resolve)),
    stop: () =>
      new Promise((resolve) => {
        child.once('exit', () => {
          fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
          resolve();
        });
        child.kill();
      }),
  };
}

/**
 * Draws every page at both widths in both schemes.
 * @returns {Promise<{ file: string, problems: string[] }[]>} the PNG files and what is wrong in each
 */
async function screenshots(pages, folder, program = chromium()) {
  fs.mkdirSync(folder, { recursive: true });
  const browser = start(program);
  const shots = [];
  try {
    const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
    const send = (method, params) => browser.send(method, params, sessionId);
    await send('Page.enable');
    for (const page of pages)
      for (const [device, width] of Object.entries(widths))
        for (const scheme of schemes) {
          const size = { width, height: 844, deviceScaleFactor: 1, mobile: device === 'phone' };
          await send('Emulation.setDeviceMetricsOverride', size);
          await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
          const loaded = browser.next('Page.loadEventFired');
          await send('Page.navigate', { url: pathToFileURL(path.resolve(page)).href });
          await loaded;
          const { result } = await send('Runtime.evaluate', { expression: `(${problems})()`, returnByValue: true });
          const { data } = await send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true });
          const file = path.join(folder, `${path.basename(page, '.html')}-${width}-${scheme}.png`);
          fs.writeFileSync(file, Buffer.from(data, 'base64'));
          shots.push({ file, problems: result.value });
        }
  } finally {
    await browser.stop();
  }
  return shots;
}

module.exports = { chromium, screenshots, widths, schemes };

if (require.main === module) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { folder: { type: 'string', default: '.' } },
  });
  if (positionals.length === 0) {
    console.error('usage: node bench/screenshots.cjs PAGE.html … [--folder FOLDER]');
    process.exit(2);
  }
  const absent = positionals.filter((page) => !fs.existsSync(page));
  if (absent.length > 0) {
    console.error(`screenshots: expected pages that exist, got ${absent.join(', ')}`);
    process.exit(2);
  }
  if (chromium() === undefined) {
    console.log('screenshots: 1 skipped (no Chromium here; CHROMIUM names one)');
    process.exit(0);
  }
  screenshots(positionals, values.folder)
    .then((shots) => {
      for (const { file, problems: wrong } of shots) {
        console.log(`${wrong.length === 0 ? 'ok    ' : 'FAILED'} ${file}`);
        for (const problem of wrong) console.log(`       ${problem}`);
      }
      process.exitCode = shots.some((shot) => shot.problems.length > 0) ? 1 : 0;
    })
    .catch((error) => {
      console.error(error.message);
      process.exitCode = 1;
    });
}
