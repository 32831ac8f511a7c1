/** Which layer this is, how it fares, and the way to its neighbours. */
import type { LayerAnswer } from "../api/types";
import { certaintySentence } from "../domain/certainty";
import { count, counted, percent } from "../domain/format";
import { isFlagged, present } from "../domain/states";
import { useStore } from "../state/context";
import { Icon } from "../ui/icons";
import { Name } from "../ui/name";

export function LayerHeader({ layer }: { readonly layer: LayerAnswer }) {
  const store = useStore();
  const { info } = layer;
  const layers = store.overview.state.value.value?.layers ?? [];
  const place = layers.findIndex((other) => other.layer === layer.layer);
  const goTo = (offset: number) => {
    const target = layers[place + offset];
    return target ? () => store.go({ layer: target.layer, unit: null, rows: null }) : undefined;
  };
  const certain = certaintySentence(layer.certainty);
  const facts = [
    info.kind,
    info.activation_function ?? "activation function not found",
    counted(layer.units, "unit"),
    info.fan_in === null ? null : `fan-in ${count(info.fan_in)}`,
    info.fan_out === null ? null : `fan-out ${count(info.fan_out)}`,
    info.role === "output" ? "output layer" : null,
  ];
  return (
    <header class="view-head">
      <div>
        <h1>
          <button type="button" class="crumb" onClick={() => store.go({ layer: null, unit: null, rows: null })}>
            {store.versus.value === null ? "Overview" : "Comparison"}
          </button>
          <span class="crumb-part" aria-hidden="true">
            /
          </span>
          <Name text={layer.layer} />
        </h1>
        <p class="lead">{sentence(layer)}</p>
        {certain !== null && <p class="facts">{certain}</p>}
        <p class="facts">{facts.filter((fact) => fact !== null).join(" · ")}</p>
      </div>
      <nav class="button-group" aria-label="Layers">
        <button
          type="button"
          class="button"
          disabled={!goTo(-1)}
          onClick={goTo(-1)}
          title="Previous layer in the model"
        >
          <Icon name="left" /> Previous
        </button>
        <button type="button" class="button" disabled={!goTo(1)} onClick={goTo(1)} title="Next layer in the model">
          Next <Icon name="right" />
        </button>
      </nav>
    </header>
  );
}

/** `12 of 128 units dead (9.4 %), 3 dying at step 900.` */
function sentence(layer: LayerAnswer): string {
  const flagged = present(layer.states).filter(isFlagged);
  const step = count(layer.steps.at(-1) ?? 0);
  const [worst, ...others] = flagged;
  if (worst === undefined) {
    const rest = present(layer.states)
      .filter((label) => label !== "active")
      .map((label) => `; ${count(layer.states[label] ?? 0)} ${label}`);
    return `No unit of ${count(layer.units)} is flagged at step ${step}${rest.join("")}.`;
  }
  const first = layer.states[worst] ?? 0;
  const more = others.map((label) => `${count(layer.states[label] ?? 0)} ${label}`);
  const tail = more.length > 0 ? `; ${more.join(", ")}` : "";
  return `${count(first)} of ${counted(layer.units, "unit")} ${worst} (${percent(first / layer.units)})${tail}, at step ${step}.`;
}
