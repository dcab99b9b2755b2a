// Counts skipped tests by reason (test/skips.ts), fails the run when one has none, and closes with one plain line.
'use strict';

class SkipReporter {
  onRunComplete(_contexts, results) {
    const counts = new Map();
    const unexplained = [];
    for (const file of results.testResults) {
      for (const result of file.testResults) {
        // 'pending' also covers tests left out by a command-line name filter; those files did run something else.
        if (result.status !== 'pending' && result.status !== 'todo') continue;
        const reason = /\[skipped: ([^\]]+)\]/.exec(result.fullName)?.[1];
        if (reason === undefined) unexplained.push(result.fullName);
        else counts.set(reason, (counts.get(reason) ?? 0) + 1);
      }
    }
    const filtered = process.argv.some((argument) => argument === '-t' || argument.startsWith('--testNamePattern'));
    if (unexplained.length > 0 && !filtered) {
      this.error = new Error(`skipped without a reason (use test/skips.ts):\n  ${unexplained.join('\n  ')}`);
      console.error(this.error.message);
    }
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites + (this.error ? 1 : 0);
    const lines = [...counts]
      .sort((a, b) => b[1] - a[1])
      .map(([reason, count]) => `skipped ${String(count).padStart(4)}: ${reason}`);
    lines.push(`${results.numPassedTests} passed, ${failed} failed, ${results.numPendingTests} skipped`);
    // jest prints its own summary after this; the plain line is to be the last.
    process.once('exit', () => process.stdout.write(`\n${lines.join('\n')}\n`));
  }

  getLastError() {
    return this.error;
  }
}

module.exports = SkipReporter;
