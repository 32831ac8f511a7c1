/** At most so many requests at once; what nobody waits for any more never starts. */

interface Waiting {
  readonly grant: (granted: boolean) => void;
}

export class RequestQueue {
  readonly #limit: number;
  #running = 0;
  #waiting: Waiting[] = [];

  constructor(limit = 6) {
    this.#limit = limit;
  }

  get running(): number {
    return this.#running;
  }

  /**
   * Run a task when there is room.
   *
   * @param task starts the request.
   * @param signal where aborted before its turn, the task is dropped.
   * @param urgent goes before everything that waits.
   * @returns what the task returns; null if it was dropped.
   */
  async run<T>(task: () => Promise<T>, signal: AbortSignal, urgent = false): Promise<T | null> {
    if (signal.aborted) return null;
    if (this.#running < this.#limit) this.#running++;
    else if (!(await this.#turn(signal, urgent))) return null;
    try {
      return await task();
    } finally {
      this.#release();
    }
  }

  /** Resolves to true with a place taken, or to false once aborted. */
  #turn(signal: AbortSignal, urgent: boolean): Promise<boolean> {
    return new Promise((grant) => {
      const entry = { grant };
      if (urgent) this.#waiting.unshift(entry);
      else this.#waiting.push(entry);
      const drop = (): void => {
        if (!this.#waiting.includes(entry)) return;
        this.#waiting = this.#waiting.filter((other) => other !== entry);
        grant(false);
      };
      signal.addEventListener("abort", drop, { once: true });
    });
  }

  /** A free place goes straight to who waits, so that the limit holds at every moment. */
  #release(): void {
    const next = this.#waiting.shift();
    if (next) next.grant(true);
    else this.#running--;
  }
}
