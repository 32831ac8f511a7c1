/** What the verdicts rest on, and what is missing. */
import type { ComponentChildren } from "preact";
import type { Overview } from "../api/types";
import { count, counted, percent, seconds } from "../domain/format";
import { useStore } from "../state/context";
import { byReason } from "./skipped";

/** More layers than these, skipped for one reason, are a number until they are asked for. */
const NAMED_AT_ONCE = 5;

/** Compiling what watches takes seconds however long a run is: said apart from the share of the rest. */
function overheadText(share: number, spent: number | null, steady: number | null, opening: number | null): string {
  if (steady !== null && opening !== null) {
    return `${percent(steady)} of training time, and ${seconds(opening)} at the start`;
  }
  return `${percent(share)} of training time${spent === null ? "" : `, ${seconds(spent)}`}`;
}

export function DataQuality({ overview }: { readonly overview: Overview }) {
  const store = useStore();
  const notes = [...overview.notes, ...(store.runs.state.value.value?.notes ?? [])];
  const {
    overhead,
    overhead_seconds: spent,
    steady_overhead: steady,
    opening_seconds: opening,
    every,
    interval,
    statistics_interval: sparse,
    records_written: written,
  } = overview;
  const pace = every ?? interval;
  return (
    <section class="panel quality" aria-label="Data quality">
      <header class="panel-head">
        <h2>Data quality</h2>
      </header>
      <dl>
        <Fact
          name="Records"
          warn={written !== null && overview.records < written}
          value={written === null ? count(overview.records) : `${count(overview.records)} of ${count(written)} written`}
        />
        {(overview.dropped ?? 0) > 0 && (
          <Fact name="Lost while writing" warn value={count(overview.dropped ?? 0)}>
            <li>Training made records faster than they could be written.</li>
          </Fact>
        )}
        {sparse !== null && (
          <Fact name="Statistics" value={sparse <= 1 ? "in every record" : `in one record of ${count(sparse)}`} />
        )}
        {pace !== null && (
          <Fact
            name="Observed"
            value={`${pace === 1 ? "every step" : `every ${count(pace)} steps`}${every === null ? ", chosen by the writer" : ""}`}
          />
        )}
        {overhead !== null && (
          <Fact name="Overhead" value={overheadText(overhead, spent, steady ?? null, opening ?? null)} />
        )}
        <Fact name="Skipped layers" warn={overview.skipped.length > 0} value={count(overview.skipped.length)}>
          {byReason(overview.skipped).map(({ reason, layers }) => (
            <li key={reason}>
              {layers.length <= NAMED_AT_ONCE ? (
                <>
                  <span class="name">{layers.join(", ")}</span>: {reason}
                </>
              ) : (
                <details>
                  <summary>
                    {counted(layers.length, "layer")}: {reason}
                  </summary>
                  <span class="name">{layers.join(", ")}</span>
                </details>
              )}
            </li>
          ))}
        </Fact>
        <Fact name="Monitor errors" warn={overview.errors.length > 0} value={count(overview.errors.length)}>
          {overview.errors.map((error) => (
            <li key={error}>{error}</li>
          ))}
        </Fact>
        {notes.length > 0 && (
          <Fact name="Left out while reading" warn value={count(notes.length)}>
            {notes.map((note) => (
              <li key={note}>{note}</li>
            ))}
          </Fact>
        )}
      </dl>
    </section>
  );
}

interface FactProps {
  readonly name: string;
  readonly value: string;
  readonly warn?: boolean;
  readonly children?: ComponentChildren;
}

function Fact({ name, value, warn = false, children }: FactProps) {
  return (
    <div class={warn ? "fact warn" : "fact"}>
      <dt>{name}</dt>
      <dd>
        {value}
        {warn && <ul>{children}</ul>}
      </dd>
    </div>
  );
}
