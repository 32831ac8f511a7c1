/** How certain it is that dead units stay dead, in the words of the record. */
import { count, counted } from "./format";

export const CERTAINTIES = ["dead for certain", "silent so far", "could recover"] as const;
export type Certainty = (typeof CERTAINTIES)[number];
export type CertaintyCounts = Readonly<Partial<Record<Certainty, number>>>;

export const CERTAINTY_MEANS: Readonly<Record<Certainty, string>> = {
  "dead for certain": "No input within the ranges seen can make it fire, and nothing that still moves it leads there.",
  "silent so far": "It has not fired, but nothing proves that it cannot.",
  "could recover": "What still moves it, without any error signal, leads it towards firing.",
};

/** `Of 24 dead units 18 are dead for certain, 6 silent so far.` Null without dead units. */
export function certaintySentence(counts: CertaintyCounts | undefined): string | null {
  const found = CERTAINTIES.filter((word) => (counts?.[word] ?? 0) > 0);
  if (counts === undefined || found.length === 0) return null;
  const dead = found.reduce((sum, word) => sum + (counts[word] ?? 0), 0);
  const [only] = found;
  if (found.length === 1 && only)
    return dead === 1 ? `The dead unit: ${only}.` : `All ${counted(dead, "dead unit")}: ${only}.`;
  return `Of ${counted(dead, "dead unit")}: ${found.map((word) => `${count(counts[word] ?? 0)} ${word}`).join(", ")}.`;
}
