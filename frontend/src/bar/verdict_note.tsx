/** Whose verdicts these are: the run's own, or judged anew with other thresholds. */
import { counted } from "../domain/format";
import { useStore } from "../state/context";

export function VerdictNote() {
  const store = useStore();
  const onLayer = store.place.value.layer !== null;
  const { value, loading } = (onLayer ? store.layer : store.overview).state.value;
  const changed = Object.keys(store.place.value.thresholds).length;
  if (!value) return null;
  if (changed === 0 && value.verdicts === "written") {
    return <p class="verdict-note">Verdicts as written by the run</p>;
  }
  return (
    <p class="verdict-note recomputed" role="status">
      {loading ? "Judging anew…" : `Recomputed with ${counted(changed, "changed threshold")}`}
      <button type="button" class="link" onClick={() => store.go({ thresholds: {} })}>
        Back to the run's own
      </button>
    </p>
  );
}
