/** How much is under way: requests, and pictures that are not drawn yet. Tests and pictures wait until nothing is. */
import { signal } from "@preact/signals";

export class Activity {
  readonly #under = signal(0);

  /** Whether nothing is under way; a signal's value. */
  get quiet(): boolean {
    return this.#under.value === 0;
  }

  /** Something begins. Returns how to say that it is over; saying so twice is the same. */
  begin(): () => void {
    // Peeked at: whoever begins something in an effect must not be called again by it.
    this.#under.value = this.#under.peek() + 1;
    let over = false;
    return () => {
      if (over) return;
      over = true;
      this.#under.value = this.#under.peek() - 1;
    };
  }
}
