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
          <b>{count(now[label] ?? 0)}</b>
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

/** Present counts, and the states that occur at any step, of the open layer or the whole run. */
function countsOnScreen(store: ReturnType<typeof useStore>): { now: StateCounts; ever: ReadonlySet<StateLabel> } {
  const ever = new Set<StateLabel>(["active"]);
  const add = (series: Readonly<Partial<Record<StateLabel, readonly number[]>>>): void => {
    for (const label of WORST_FIRST) if (series[label]?.some((units) => units > 0)) ever.add(label);
  };
  if (store.place.value.layer !== null) {
    const layer = store.layer.state.value.value;
    if (layer) add(layer.counts);
    return { now: layer?.states ?? {}, ever };
  }
  const overview = store.overview.state.value.value;
  for (const { strip } of overview?.layers ?? []) add(strip);
  return { now: overview?.totals ?? {}, ever };
}
