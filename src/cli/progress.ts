import type { Io } from './command';

/** A duration for people: `8 s`, `3 min 20 s`, `2 h 05 min`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const two = (n: number) => String(n).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/**
 * One line on stderr, rewritten at most ten times a second: count, rate and time left. Silent where stderr is not a terminal.
 */
export class Progress {
  private readonly begun: number;
  private shown = Number.NEGATIVE_INFINITY;
  private done = 0;
  private fraction = 0;

  constructor(
    private readonly stderr: Io['stderr'],
    private readonly unit: string,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.begun = now();
  }

  /** Input read so far, for the time left. */
  read = (done: number, total: number): void => {
    this.fraction = total > 0 ? done / total : 0;
  };

  /** Adds finished rows. */
  add(rows: number): void {
    this.done += rows;
    const time = this.now();
    if (!this.stderr.isTTY || time - this.shown < 100) return;
    this.shown = time;
    const seconds = (time - this.begun) / 1000;
    const left = this.fraction > 0 ? `, ${formatDuration((seconds * (1 - this.fraction)) / this.fraction)} left` : '';
    const rate = seconds > 0 ? Math.round(this.done / seconds) : 0;
    const share = this.fraction > 0 ? ` (${Math.floor(this.fraction * 100)} %)` : '';
    this.stderr.write(`\r\x1b[K${this.done} ${this.unit}${share}, ${rate}/s${left}`);
  }

  /** Clears the line. @returns rows and seconds. */
  end(): { rows: number; seconds: number } {
    if (this.stderr.isTTY && this.done > 0) this.stderr.write('\r\x1b[K');
    return { rows: this.done, seconds: (this.now() - this.begun) / 1000 };
  }
}
