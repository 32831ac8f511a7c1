/** Single keys that work anywhere. They can be turned off (WCAG 2.1.4), and the choice is remembered. */
import { effect, signal } from "@preact/signals";

const KEY = "dead_units.shortcuts";

export const shortcutsEnabled = signal(stored());

function stored(): boolean {
  try {
    return window.localStorage.getItem(KEY) !== "off";
  } catch {
    return true;
  }
}

/** Presses the button that names the key. Returns how to stop listening. */
export function listenForShortcuts(root: HTMLElement): () => void {
  const stopRemembering = effect(() => {
    try {
      window.localStorage.setItem(KEY, shortcutsEnabled.value ? "on" : "off");
    } catch {
      // Storage is closed to us: the choice lasts until the page goes.
    }
  });
  const press = (event: KeyboardEvent): void => {
    if (!shortcutsEnabled.peek() || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target as HTMLElement;
    if (target.matches("input, select, textarea") || target.closest("dialog")) return;
    const button = root.querySelector<HTMLElement>(`[data-shortcut="${CSS.escape(event.key)}"]`);
    if (!button) return;
    event.preventDefault();
    button.click();
  };
  window.addEventListener("keydown", press);
  return () => {
    window.removeEventListener("keydown", press);
    stopRemembering();
  };
}
