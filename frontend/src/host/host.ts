/** What the tab needs from whatever page it lives in. */
import type { ReadonlySignal } from "@preact/signals";
import type { Theme } from "../domain/palette";
import type { Link } from "../state/place";

export interface Host {
  readonly theme: ReadonlySignal<Theme>;
  /** The link that the page was opened with. */
  readLink(): Link;
  /** Keep the link in the page's address; `journey` makes it a step that Back undoes. */
  writeLink(link: Link, journey: boolean): void;
  /** The address that brings the reader back here. */
  address(): string;
  /** Called when the reader goes back or forth, or edits the address. */
  onLink(callback: (link: Link) => void): void;
  /** Called when new data may be there. */
  onReload(callback: () => void): void;
}
