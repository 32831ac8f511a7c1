/** Nothing to show yet, and the three lines that change that. */
import { useState } from "preact/hooks";
import { CopyButton } from "../ui/copy_button";

const CALLBACK = "callbacks=[DeadUnitsCallback(";

const CODE = {
  Keras: `from deadunits_tb.keras import DeadUnitsCallback

model.fit(x, y, ${CALLBACK}"runs/mlp")])`,
  PyTorch: `from deadunits_tb.torch import watch

with watch(model, "runs/mlp", optimizer=optimizer):
    train(model, optimizer)  # your loop`,
  Lightning: `from deadunits_tb.lightning import DeadUnitsCallback

Trainer(${CALLBACK}"runs/mlp")]).fit(module)`,
  Transformers: `from deadunits_tb.transformers import DeadUnitsCallback

Trainer(model, arguments, train_dataset=data, ${CALLBACK}"runs/bert")]).train()`,
  "Anything else": `from deadunits_tb import DeadUnitsWriter

with DeadUnitsWriter("runs/mlp") as writer:
    for step, batch in enumerate(batches):  # your loop
        writer.observe(step, layer="hidden", activations=hidden(batch), activation_function="relu")`,
} as const;

type Framework = keyof typeof CODE;

const COMMAND = "tensorboard --logdir runs";

export function EmptyState({ notes }: { readonly notes: readonly string[] }) {
  const [framework, setFramework] = useState<Framework>("Keras");
  return (
    <main class="view empty">
      <h1>No units recorded yet</h1>
      <p>
        This log directory holds no record of units. Add these lines to your training, then point TensorBoard at the
        same directory:
      </p>
      <div class="segments wrap" role="group" aria-label="Framework">
        {(Object.keys(CODE) as Framework[]).map((name) => (
          <button key={name} type="button" aria-pressed={name === framework} onClick={() => setFramework(name)}>
            {name}
          </button>
        ))}
      </div>
      <pre class="code">
        <code>
          {CODE[framework]}
          {"\n\n"}
          {COMMAND}
        </code>
      </pre>
      <CopyButton icon="copy" label="Copy the code" text={() => CODE[framework]} />
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
