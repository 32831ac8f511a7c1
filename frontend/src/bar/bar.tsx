/** The bar that stays: where the reader is, what part of the run is shown, and by which measure. */
import { useSignalEffect } from "@preact/signals";
import { showPair } from "../compare/paired_heatmaps";
import { count, counted } from "../domain/format";
import { useStore } from "../state/context";
import { Chooser } from "../ui/chooser";
import { Icon } from "../ui/icons";
import { useSize } from "../ui/size";
import { Legend } from "./legend";
import { StepRange } from "./step_range";
import { VerdictNote } from "./verdict_note";

export function Bar() {
  const store = useStore();
  const { ref, size } = useSize<HTMLElement>();
  const comparing = store.place.value.layer === null && store.versus.value !== null; // the steps of one run are not those of two
  useSignalEffect(() => {
    // What sticks below the bar must know where it ends; narrow windows wrap it.
    document.documentElement.style.setProperty("--bar-height", `${size.value.height + 1}px`);
  });
  return (
    <header class="bar" ref={ref}>
      <div class="bar-row">
        <RunChooser />
        <VersusChooser />
        <LayerChooser />
        <span class="spacer" />
        {!comparing && <StepRange />}
        <ThresholdButton />
        <ExportLink />
        <button
          type="button"
          class="button icon"
          aria-label="Help"
          title="Help (?)"
          data-shortcut="?"
          onClick={() => store.go({ panel: "help" })}
        >
          <Icon name="help" />
        </button>
      </div>
      <div class="bar-row legend-row">
        <Legend />
        <span class="spacer" />
        <VerdictNote />
      </div>
    </header>
  );
}

function RunChooser() {
  const store = useStore();
  const runs = store.runs.state.value.value?.runs ?? [];
  const current = store.run.value?.run ?? "–";
  return (
    <Chooser
      label="Run"
      current={current}
      choices={runs.map(({ run, last_step }) => ({
        value: run,
        text: run,
        ...(last_step === null ? {} : { note: `to step ${count(last_step)}` }),
      }))}
      onChoose={(run) => {
        const { versus } = store.place.peek();
        store.go({ run, versus: versus === run ? null : versus, unit: null, rows: null, steps: null });
      }}
    />
  );
}

const NOTHING = "\n";

/** One choice opens the comparison: with and without dropout, say. */
function VersusChooser() {
  const store = useStore();
  const runs = store.runs.state.value.value?.runs ?? [];
  const current = store.run.value?.run;
  const versus = store.versus.value;
  const others = runs.filter(({ run }) => run !== current);
  if (others.length === 0 && versus === null) return null;
  return (
    <Chooser
      label="Compare with"
      current={versus ?? "nothing"}
      choices={[
        { value: NOTHING, text: "nothing" },
        ...others.map(({ run, last_step }) => ({
          value: run,
          text: run,
          ...(last_step === null ? {} : { note: `to step ${count(last_step)}` }),
        })),
      ]}
      onChoose={(run) =>
        store.go({ versus: run === NOTHING ? null : run, layer: null, unit: null, rows: null, steps: null })
      }
    />
  );
}

const ALL = "\n";

function LayerChooser() {
  const store = useStore();
  const layers = store.overview.state.value.value?.layers ?? [];
  const { layer: open } = store.place.value;
  const pair = open === null ? store.pair.chosen.value : null;
  const choices = layers.map(({ layer, units, level }) => ({
    value: layer,
    text: layer,
    note: counted(units, "unit"),
    mark: level,
  }));
  if (pair !== null) {
    return (
      <Chooser
        label="Layer"
        shortcut="/"
        current={pair.first ?? pair.second ?? ""}
        choices={choices}
        onChoose={(layer) => showPair(store, layer)}
      />
    );
  }
  return (
    <Chooser
      label="Layer"
      shortcut="/"
      current={open ?? "All layers"}
      choices={[{ value: ALL, text: "All layers", note: "overview" }, ...choices]}
      onChoose={(layer) => store.go({ layer: layer === ALL ? null : layer, unit: null, rows: null })}
    />
  );
}

function ThresholdButton() {
  const store = useStore();
  const { panel, thresholds } = store.place.value;
  const changed = Object.keys(thresholds).length;
  const open = panel === "thresholds";
  return (
    <button
      type="button"
      class="button"
      aria-pressed={open}
      onClick={() => store.go({ panel: open ? null : "thresholds" })}
    >
      <Icon name="sliders" />
      Thresholds
      {changed > 0 && <span class="badge">{changed} changed</span>}
    </button>
  );
}

function ExportLink() {
  const store = useStore();
  const run = store.run.value;
  const { layer, thresholds } = store.place.value;
  if (!run) return null;
  return (
    <a
      class="button"
      href={store.api.exportAddress(run.run, layer, thresholds)}
      download=""
      title={layer === null ? "All units of the run as CSV" : `All units of ${layer} as CSV`}
    >
      <Icon name="download" />
      CSV
    </a>
  );
}
