/** Keeps what was used last, up to a number of entries. */
export class LruCache<T> {
  readonly #entries = new Map<string, T>();

  constructor(
    readonly capacity: number,
    readonly onEvict: (value: T) => void = () => {},
  ) {}

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): T | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  /** Look without counting it as use. */
  peek(key: string): T | undefined {
    return this.#entries.get(key);
  }

  set(key: string, value: T): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    for (const [oldest, evicted] of this.#entries) {
      if (this.#entries.size <= this.capacity) break;
      this.#entries.delete(oldest);
      this.onEvict(evicted);
    }
  }

  clear(): void {
    for (const value of this.#entries.values()) this.onEvict(value);
    this.#entries.clear();
  }
}
