/** A titled part of a view: a chart with its twin, a table of the same numbers. */
import type { ComponentChildren } from "preact";
import { useStore } from "../state/context";

interface Props {
  /** Names the twin in the address. */
  readonly name: string;
  readonly title: string;
  readonly note?: ComponentChildren;
  readonly tools?: ComponentChildren;
  /** Builds the table twin; only called while it is shown. */
  readonly table?: () => ComponentChildren;
  readonly children: ComponentChildren;
}

export function Panel({ name, title, note, tools, table, children }: Props) {
  const store = useStore();
  const { tables } = store.place.value;
  const asTable = tables.includes(name);
  const toggle = (): void =>
    store.go({ tables: asTable ? tables.filter((other) => other !== name) : [...tables, name] });
  return (
    <section class="panel" aria-label={title}>
      <header class="panel-head">
        <h2>{title}</h2>
        {note && <span class="panel-note">{note}</span>}
        <span class="spacer" />
        {tools}
        {table && (
          <button type="button" class="button quiet" aria-pressed={asTable} onClick={toggle}>
            {asTable ? "Chart" : "Table"}
          </button>
        )}
      </header>
      {asTable && table ? table() : children}
    </section>
  );
}
