/** Copies a text and says so. */
import { useState } from "preact/hooks";
import { Icon, type IconName } from "./icons";

interface Props {
  readonly text: () => string;
  readonly label: string;
  readonly icon?: IconName;
}

const SAID_MILLISECONDS = 1600;

export function CopyButton({ text, label, icon = "link" }: Props) {
  const [said, setSaid] = useState<string | null>(null);
  const copy = async (): Promise<void> => {
    setSaid((await write(text())) ? "Copied" : "Copying is not allowed here");
    window.setTimeout(() => setSaid(null), SAID_MILLISECONDS);
  };
  return (
    <button type="button" class="button quiet" onClick={() => void copy()}>
      <Icon name={said === "Copied" ? "check" : icon} />
      <span aria-live="polite">{said ?? label}</span>
    </button>
  );
}

/** An iframe may be denied the clipboard; a selected field still copies. */
async function write(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}
