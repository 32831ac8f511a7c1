/** Two runs side by side: how they were made differently, where more units die, and whether chance explains that. */
import type { Comparison } from "../api/comparison";
import { count, number, sentence } from "../domain/format";
import { useStore } from "../state/context";
import { DataTable } from "../ui/data_table";
import { Name } from "../ui/name";
import { Failure, Skeleton } from "../ui/notices";
import { ComparedLayers } from "./compared_layers";
import { PairedHeatmaps, showPair } from "./paired_heatmaps";

const VERDICTS: Readonly<Record<Comparison["verdict"], string>> = {
  for: "speaks for dying units",
  mixed: "mixed",
  none: "no difference",
  unknown: "cannot be told",
};

export function CompareView() {
  const store = useStore();
  const { value: comparison, error, loading } = store.comparison.state.value;
  const stop = (): void => store.go({ versus: null });
  if (!comparison) {
    return (
      <main class="view">
        {error ? (
          <Failure title="These runs cannot be compared" error={error} retry={store.comparison.retry}>
            <button type="button" class="button" onClick={stop}>
              Back to the overview
            </button>
          </Failure>
        ) : (
          <>
            <Skeleton height={64} label="Comparing the runs" />
            <Skeleton height={160} />
            <Skeleton height={240} />
          </>
        )}
      </main>
    );
  }
  return (
    <main class={loading ? "view refreshing" : "view"}>
      <Verdict comparison={comparison} />
      {error && <Failure error={error} retry={store.comparison.retry} />}
      <PairedHeatmaps comparison={comparison} />
      <ComparedLayers comparison={comparison} />
      <Made comparison={comparison} />
      <Alone comparison={comparison} />
    </main>
  );
}

function Verdict({ comparison }: { readonly comparison: Comparison }) {
  const store = useStore();
  const { first, second, verdict, step, losses } = comparison;
  const swap = (): void => store.go({ run: second, versus: first });
  return (
    <header class="view-head">
      <div class="comparison">
        <p class="facts">
          <span class={`chip verdict-${verdict}`}>{VERDICTS[verdict]}</span> <Name text={first} /> and{" "}
          <Name text={second} />, compared at step {count(step)}
          {losses[0] !== null && losses[1] !== null && ` · loss ${number(losses[0])} and ${number(losses[1])}`}
        </p>
        <h1 class="headline">{sentence(comparison.sentence)}.</h1>
        <ul class="details">
          {comparison.details.map((detail) => (
            <li key={detail}>{sentence(detail)}.</li>
          ))}
        </ul>
      </div>
      <div class="button-group">
        <button type="button" class="button" onClick={swap}>
          Swap
        </button>
        <button type="button" class="button" onClick={() => store.go({ versus: null })}>
          End comparison
        </button>
      </div>
    </header>
  );
}

function Made({ comparison: { first, second, differences } }: { readonly comparison: Comparison }) {
  if (differences.length === 0) return null;
  return (
    <section class="panel" aria-label="Made differently">
      <header class="panel-head">
        <h2>Made differently</h2>
        <span class="panel-note">as far as the logs know</span>
      </header>
      <DataTable
        caption="What was made differently"
        rows={differences}
        columns={[
          {
            title: "what",
            cell: ({ what, lever }) => (
              <>
                {what} {lever !== null && lever !== what && <span class="chip">{lever}</span>}
              </>
            ),
          },
          { title: first, cell: (row) => row.first },
          { title: second, cell: (row) => row.second },
        ]}
      />
    </section>
  );
}

/** Layers without a counterpart are listed, never dropped. */
function Alone({ comparison }: { readonly comparison: Comparison }) {
  const store = useStore();
  const lists = [
    { run: comparison.first, layers: comparison.only_first },
    { run: comparison.second, layers: comparison.only_second },
  ].filter(({ layers }) => layers.length > 0);
  if (lists.length === 0) return null;
  return (
    <section class="panel" aria-label="Not compared">
      <header class="panel-head">
        <h2>Not compared</h2>
        <span class="panel-note">layers without a counterpart in the other run</span>
      </header>
      <dl class="alone">
        {lists.map(({ run, layers }) => (
          <div key={run}>
            <dt>only in {run}</dt>
            <dd class="layer-names">
              {layers.map((layer) => (
                <button key={layer} type="button" class="link name" onClick={() => showPair(store, layer)}>
                  {layer}
                </button>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
