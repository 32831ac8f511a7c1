/** The states with their counts; each is a switch that hides its state everywhere. */
import { useComputed } from "@preact/signals";
import { count } from "../domain/format";
import { type StateCounts, type StateLabel, WORST_FIRST } from "../domain/states";
import { useStore } from "../state/context";
import { Swatch } from "../ui/swatch";

export function Legend() {
  const store = useStore();
  const { hidden } = store.place.value;
  const shown = useComputed(() => countsOnScreen(store));
  const meanings = store.glossary.state.value.value?.states ?? [];
  const { now, ever } = shown.value;
  if (now.length === 0) return null;
  const labels = WORST_FIRST.filter((label) => ever.has(label) || hidden.includes(label));
  const toggle = (label: StateLabel): void =>
    store.go({ hidden: hidden.includes(label) ? hidden.filter((other) => other !== label) : [...hidden, label] });
  return (
    <div class="legend" role="group" aria-label="States: press to hide or show">
      {labels.map((label) => (
        <button
          key={label}
          type="button"
          class="legend-item"
          aria-pressed={!hidden.includes(label)}
          title={meanings.find((entry) => entry.label === label)?.means ?? label}
          onClick={() => toggle(label)}
        >
          <Swatch state={label} />
          <span>{label}</span>
          <b>{now.map((counts) => count(counts[label] ?? 0)).join(" | ")}</b>
        </button>
      ))}
      {hidden.length > 0 && (
        <button type="button" class="link" onClick={() => store.go({ hidden: [] })}>
          Show all
        </button>
      )}
    </div>
  );
}

interface OnScreen {
  /** Present counts: of the run or the layer, or of the layer in each of two runs. */
  readonly now: readonly StateCounts[];
  /** States that occur at any step. */
  readonly ever: ReadonlySet<StateLabel>;
}

function countsOnScreen(store: ReturnType<typeof useStore>): OnScreen {
  const ever = new Set<StateLabel>(["active"]);
  const add = (series: Readonly<Partial<Record<StateLabel, readonly number[]>>>): void => {
    for (const label of WORST_FIRST) if (series[label]?.some((units) => units > 0)) ever.add(label);
  };
  const comparing = store.place.value.layer === null && store.versus.value !== null;
  if (comparing || store.place.value.layer !== null) {
    const scopes = comparing ? store.pair.scopes : [store];
    const layers = scopes.flatMap(({ layer }) => layer.state.value.value ?? []);
    for (const { counts } of layers) add(counts);
    return { now: layers.map(({ states }) => states), ever };
  }
  const overview = store.overview.state.value.value;
  for (const { strip } of overview?.layers ?? []) add(strip);
  return { now: [overview?.totals ?? {}], ever };
}
