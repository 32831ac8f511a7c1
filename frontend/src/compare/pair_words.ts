/** What two heatmaps one above the other show, and what they cannot, in plain words. */
import type { Comparison } from "../api/comparison";
import type { LayerAnswer } from "../api/types";
import { chanceText, isUntouched, type LayerPair } from "../domain/comparison";
import { count, counted } from "../domain/format";

/** What the comparison says of this layer. */
export function pairSentence({ first, second }: Comparison, pair: LayerPair): string {
  const { compared } = pair;
  if (compared === null) {
    const [name, there, lacking] = pair.first !== null ? [pair.first, first, second] : [pair.second, second, first];
    return `'${lacking}' has no layer ${name}, and none in its place: only that of '${there}' is shown.`;
  }
  if (isUntouched(compared)) return `No unit of ${compared.layer} is ${compared.trouble} in either run.`;
  const sides = [
    { run: first, side: compared.first },
    { run: second, side: compared.second },
  ].map(({ run, side }) =>
    side.judged === 0
      ? `in '${run}' no unit can be judged yet`
      : `in '${run}' ${count(side.troubled)} of ${counted(side.judged, "unit")}`,
  );
  const chance =
    compared.chance === null
      ? "how likely chance alone makes such a difference is unknown"
      : compared.differs
        ? `chance alone hardly makes such a difference (${chanceText(compared.chance)})`
        : `chance alone may make such a difference (${chanceText(compared.chance)})`;
  return `${compared.layer}, ${compared.trouble}: ${sides.join(", ")}; ${chance}.`;
}

/** How far rows and colours of the two can be held against each other. */
export function pairCaveats(
  { first, second }: Comparison,
  pair: LayerPair,
  answers: readonly [LayerAnswer, LayerAnswer],
  statistics: readonly [string | null, string | null] | null,
): string[] {
  const [one, other] = answers;
  const found: string[] = [];
  if (pair.compared?.matched === "place") {
    found.push(`${pair.second} of '${second}' has another name and stands in the place of ${pair.first}.`);
  }
  if (one.units !== other.units) {
    found.push(
      `${pair.first} has ${counted(one.units, "unit")} in '${first}' and ${count(other.units)} in '${second}': ` +
        "a row of one is no row of the other, and each heatmap is in its own order.",
    );
  } else {
    found.push(
      "A row is the unit with the same number in both runs; only if they began with the same weights is it the same unit.",
    );
  }
  if (one.steps[0] !== other.steps[0] || one.steps.at(-1) !== other.steps.at(-1)) {
    found.push("Hatched: the run has no records there.");
  }
  if (statistics !== null && statistics[1] === null && statistics[0] !== null) {
    found.push(`${statistics[0]} was not recorded in '${second}'.`);
  }
  return found;
}
