/** Every number that decides a verdict: what it means, where it comes from, and a way to try another. */
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import type { Glossary, ThresholdEntry, ThresholdValues } from "../api/types";
import { number, sentence } from "../domain/format";
import { useStore } from "../state/context";
import {
  asPython,
  currentPreset,
  fromSlider,
  outOfReach,
  permitted,
  presetChanges,
  toSlider,
  withThreshold,
} from "../state/thresholds";
import { CopyButton } from "../ui/copy_button";
import { Icon } from "../ui/icons";
import { Failure, Skeleton } from "../ui/notices";
import { StateName } from "../ui/swatch";

const SETTLE_MILLISECONDS = 120;

export function ThresholdsPanel() {
  const store = useStore();
  const { value: glossary, error } = store.glossary.state.value;
  const written = store.overview.state.value.value?.writer_thresholds;
  const close = (): void => store.go({ panel: null });
  return (
    <aside class="thresholds" aria-label="Thresholds">
      <header class="drawer-head">
        <h2>Thresholds</h2>
        <span class="spacer" />
        <button type="button" class="button icon quiet" aria-label="Close" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      <div class="drawer-body">
        {error && <Failure error={error} retry={store.glossary.retry} />}
        {glossary && written ? <Controls glossary={glossary} written={written} /> : !error && <Skeleton height={400} />}
      </div>
    </aside>
  );
}

interface ControlsProps {
  readonly glossary: Glossary;
  readonly written: ThresholdValues;
}

function Controls({ glossary, written }: ControlsProps) {
  const store = useStore();
  const changes = store.place.value.thresholds;
  const preset = currentPreset(glossary, written, changes);
  const writing = glossary.thresholds.filter(({ acts }) => acts === "writing");
  const asWritten = Object.keys(changes).length === 0;
  return (
    <>
      <p class="hint">
        A change shows at once, here only: the log is not touched. To keep it, give it to the next run.
      </p>
      <div class="segments wrap" role="group" aria-label="Presets">
        <button type="button" aria-pressed={asWritten} onClick={() => store.go({ thresholds: {} })}>
          as written
        </button>
        {Object.keys(glossary.presets).map((name) => (
          <button
            key={name}
            type="button"
            aria-pressed={!asWritten && preset === name}
            onClick={() => store.go({ thresholds: presetChanges(glossary, name, written) })}
          >
            {name}
          </button>
        ))}
      </div>
      {preset !== null && !asWritten && outOfReach(glossary, preset, written).length > 0 && (
        <p class="hint">
          Only a new run can bring {outOfReach(glossary, preset, written).join(", ")} of this preset into force.
        </p>
      )}
      {!asWritten && <CopyButton icon="copy" label="Copy as Python" text={() => asPython(changes)} />}
      {groups(glossary).map(({ title, entries }) => (
        <section key={entries[0]?.name}>
          <h3>{title}</h3>
          {entries.map((entry) => (
            <Control key={entry.name} entry={entry} written={written} />
          ))}
        </section>
      ))}
      {writing.length > 0 && (
        <>
          <h3>Decided while writing</h3>
          <p class="hint">These decide what is recorded. A change needs a new run.</p>
          {writing.map((entry) => (
            <div key={entry.name} class="threshold fixed">
              <div class="threshold-head">
                <span class="name">{entry.name}</span>
                <b>{number(written[entry.name] ?? entry.default)}</b>
                <span class="hint">{entry.unit}</span>
              </div>
              <p>{entry.meaning}</p>
              <p class="hint">{entry.source}</p>
            </div>
          ))}
        </>
      )}
    </>
  );
}

interface Group {
  readonly title: ComponentChildren;
  readonly entries: readonly ThresholdEntry[];
}

/** Thresholds under the state that they decide first; the rest weigh findings. */
function groups(glossary: Glossary): Group[] {
  const left = new Map(
    glossary.thresholds.filter(({ acts }) => acts === "judging").map((entry) => [entry.name, entry]),
  );
  const found: Group[] = [];
  for (const state of [...glossary.states].sort((first, second) => second.code - first.code)) {
    const entries = state.thresholds.flatMap((name) => left.get(name) ?? []);
    for (const { name } of entries) left.delete(name);
    if (entries.length > 0) found.push({ title: <StateName state={state.label} />, entries });
  }
  if (left.size > 0) found.push({ title: "Layers and findings", entries: [...left.values()] });
  return found;
}

function Control({ entry, written }: { readonly entry: ThresholdEntry; readonly written: ThresholdValues }) {
  const store = useStore();
  const timer = useRef<number | undefined>(undefined);
  const changes = store.place.value.thresholds;
  const own = written[entry.name] ?? entry.default;
  const [draft, setDraft] = useState<number | null>(null);
  const value = draft ?? changes[entry.name] ?? own;
  const set = (next: number): void => {
    window.clearTimeout(timer.current);
    setDraft(permitted(entry, next));
    timer.current = window.setTimeout(() => {
      setDraft(null);
      const current = store.place.peek().thresholds;
      store.go({ thresholds: withThreshold(current, written, entry.name, permitted(entry, next)) });
    }, SETTLE_MILLISECONDS);
  };
  const changed = entry.name in changes;
  const id = `threshold-${entry.name}`;
  return (
    <div class={changed ? "threshold changed" : "threshold"}>
      <div class="threshold-head">
        <label class="name" for={id}>
          {entry.name}
        </label>
        <span class="spacer" />
        <input
          id={id}
          class="input number-input"
          type="text"
          inputMode="decimal"
          value={String(value)}
          onChange={(event) => {
            const next = Number(event.currentTarget.value.replace(/[,\s_]/g, ""));
            if (Number.isFinite(next) && event.currentTarget.value.trim() !== "") set(next);
            event.currentTarget.value = String(Number.isFinite(next) ? permitted(entry, next) : value);
          }}
        />
      </div>
      <input
        class="slider"
        type="range"
        min="0"
        max="1000"
        aria-label={`${entry.name}, slider`}
        aria-valuetext={`${number(value)} ${entry.unit}`}
        value={Math.round(toSlider(entry, value) * 1000)}
        onInput={(event) => set(fromSlider(entry, Number(event.currentTarget.value) / 1000))}
      />
      <p>
        {sentence(entry.meaning)} <span class="hint">({entry.unit})</span>
      </p>
      <p class="hint">{entry.source}</p>
      {changed && (
        <button type="button" class="link" onClick={() => set(own)}>
          Back to {number(own)}
        </button>
      )}
    </div>
  );
}
