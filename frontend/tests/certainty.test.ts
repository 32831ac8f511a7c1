import { describe, expect, it } from "vitest";
import { CERTAINTIES, CERTAINTY_MEANS, certaintySentence } from "../src/domain/certainty";

describe("certainty of deaths", () => {
  it.each([
    [undefined, null],
    [{}, null],
    [{ "silent so far": 1 }, "The dead unit: silent so far."],
    [{ "dead for certain": 1200 }, "All 1,200 dead units: dead for certain."],
    [
      { "could recover": 1, "dead for certain": 18, "silent so far": 5 },
      "Of 24 dead units: 18 dead for certain, 5 silent so far, 1 could recover.",
    ],
  ])("says of %o: %s", (counts, text) => {
    expect(certaintySentence(counts)).toBe(text);
  });

  it("explains each word", () => {
    expect(Object.keys(CERTAINTY_MEANS)).toEqual([...CERTAINTIES]);
  });
});
