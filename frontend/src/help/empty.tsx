/** Nothing to show yet, and the three lines that change that. */
import { CopyButton } from "../ui/copy_button";

const CODE = `from deadunits_tb.keras import DeadUnitsCallback

model.fit(x, y, callbacks=[DeadUnitsCallback("runs/mlp")])`;

const COMMAND = "tensorboard --logdir runs";

export function EmptyState({ notes }: { readonly notes: readonly string[] }) {
  return (
    <main class="view empty">
      <h1>No units recorded yet</h1>
      <p>
        This log directory holds no record of units. Add the callback to your training, then point TensorBoard at the
        same directory:
      </p>
      <pre class="code">
        <code>
          {CODE}
          {"\n\n"}
          {COMMAND}
        </code>
      </pre>
      <CopyButton icon="copy" label="Copy the code" text={() => CODE} />
      <p class="hint">
        Records show up here while training runs. If training has begun already: is the directory the one that
        TensorBoard was started with?
      </p>
      {notes.length > 0 && (
        <div class="notice">
          <p>Some of what is there could not be read:</p>
          <ul>
            {notes.map((note) => (
              <li key={note}>{note}</li>
            ))}
          </ul>
        </div>
      )}
    </main>
  );
}
