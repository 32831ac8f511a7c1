/** One unit beside the layer: its verdict, what decided it, and all its numbers over steps. */
import { useComputed } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { UnitAnswer } from "../api/types";
import { count } from "../domain/format";
import { StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { CopyButton } from "../ui/copy_button";
import { Icon } from "../ui/icons";
import { Name } from "../ui/name";
import { Failure, Skeleton } from "../ui/notices";
import { Ribbon } from "./ribbon";
import { StatisticCharts } from "./statistic_charts";
import { Verdict } from "./verdict";

export function UnitDrawer() {
  const store = useStore();
  const { value, error } = store.unit.state.value;
  const { unit, layer } = store.place.value;
  const close = (): void => store.go({ unit: null });
  const panel = useRef<HTMLElement>(null);
  useEffect(() => {
    const key = (event: KeyboardEvent): void => {
      if (event.key === "Escape" && !event.defaultPrevented) close();
    };
    window.addEventListener("keydown", key);
    return () => window.removeEventListener("keydown", key);
  }, []);
  if (unit === null || layer === null) return null;
  const current = value !== null && value.unit === unit && value.layer === layer;
  return (
    <aside ref={panel} class="drawer" aria-label={`Unit ${unit} of layer ${layer}`}>
      <header class="drawer-head">
        <h2>
          unit {count(unit)}{" "}
          <span class="hint">
            in layer <Name text={layer} />
          </span>
        </h2>
        <span class="spacer" />
        <CopyButton text={() => store.host.address()} label="Copy link" />
        <button type="button" class="button icon quiet" aria-label="Close" title="Close (Esc)" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      <Neighbours value={current ? value : null} />
      <div class={current ? "drawer-body" : "drawer-body refreshing"}>
        {error && <Failure error={error} retry={store.unit.retry} />}
        {value && !error ? <Body value={value} /> : !error && <Waiting />}
      </div>
    </aside>
  );
}

function Neighbours({ value }: { readonly value: UnitAnswer | null }) {
  const store = useStore();
  const to = (unit: number | null | undefined) =>
    unit === null || unit === undefined ? undefined : () => store.go({ unit });
  return (
    <nav class="drawer-nav" aria-label="Flagged units">
      <button
        type="button"
        class="button"
        disabled={!to(value?.previous_flagged)}
        onClick={to(value?.previous_flagged)}
      >
        <Icon name="left" /> Previous flagged
      </button>
      <button type="button" class="button" disabled={!to(value?.next_flagged)} onClick={to(value?.next_flagged)}>
        Next flagged <Icon name="right" />
      </button>
    </nav>
  );
}

function Body({ value }: { readonly value: UnitAnswer }) {
  const store = useStore();
  const scale = useComputed(() => new StepScale(store.unit.state.value.value?.steps ?? []));
  const range = useComputed(() => scale.value.rangeOf(store.place.value.steps));
  return (
    <>
      <Verdict value={value} />
      <Ribbon value={value} scale={scale.value} range={range.value} />
      <StatisticCharts value={value} scale={scale.value} range={range} />
    </>
  );
}

function Waiting() {
  return (
    <>
      <Skeleton height={90} label="Loading the unit" />
      <Skeleton height={24} />
      {[0, 1, 2, 3].map((chart) => (
        <Skeleton key={chart} height={72} />
      ))}
    </>
  );
}
