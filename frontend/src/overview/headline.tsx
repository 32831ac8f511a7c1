/** The one sentence, and what run it is about. */
import type { Overview } from "../api/types";
import { count, counted } from "../domain/format";

export function Headline({ overview }: { readonly overview: Overview }) {
  const units = overview.layers.reduce((sum, layer) => sum + layer.units, 0);
  const optimizer = typeof overview.optimizer?.class === "string" ? overview.optimizer.class : null;
  const facts = [
    counted(overview.layers.length, "layer"),
    counted(units, "unit"),
    `steps ${count(overview.first_step)} to ${count(overview.last_step)}`,
    overview.framework,
    optimizer,
  ];
  return (
    <header class="view-head">
      <div>
        <h1 class="headline">{overview.headline}</h1>
        <p class="facts">{facts.filter(Boolean).join(" · ")}</p>
      </div>
    </header>
  );
}
