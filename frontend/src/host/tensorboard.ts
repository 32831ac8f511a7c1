/**
 * TensorBoard as host. The tab is an iframe of the same origin; nothing here is promised by TensorBoard, so every part
 * is detected and stands on its own: without it the tab still works, with its own address, theme and polling.
 */
import { signal } from "@preact/signals";
import type { Theme } from "../domain/palette";
import type { Link } from "../state/place";
import { adoptFonts } from "./fonts";
import type { Host } from "./host";
import { listenForReload } from "./messages";

const PREFIX = "p.dead_units.";
const POLL_MILLISECONDS = 10_000;

/** TensorBoard's store of values in the address. */
interface Storage {
  setString(key: string, value: string, options: { defaultValue: string; useLocationReplace: boolean }): void;
}

type HostWindow = Window & { readonly tensorboard?: { readonly tf_storage?: Storage } };

export function connect(): Host {
  const parent = parentWindow();
  if (parent) adoptFonts(parent.document);
  const home: HostWindow = parent ?? window;
  return {
    theme: watchTheme(parent),
    readLink: () => parseHash(home.location.hash),
    writeLink: (link, journey) => writeLink(home, link, journey),
    address: () => home.location.href,
    onLink: (callback) => {
      const read = (): void => callback(parseHash(home.location.hash));
      home.addEventListener("hashchange", read);
      home.addEventListener("popstate", read);
      window.addEventListener("pagehide", () => {
        home.removeEventListener("hashchange", read);
        home.removeEventListener("popstate", read);
      });
    },
    onReload: (callback) => listenForReload(parent, callback, POLL_MILLISECONDS),
  };
}

/** The page around this one, if it lets itself be read. */
function parentWindow(): HostWindow | null {
  try {
    return window.parent !== window && window.parent.document ? (window.parent as HostWindow) : null;
  } catch {
    return null;
  }
}

function watchTheme(parent: Window | null) {
  const theme = signal<Theme>("light");
  if (parent) {
    const body = parent.document.body;
    const read = (): void => {
      theme.value = body.classList.contains("dark-mode") ? "dark" : "light";
    };
    read();
    const observer = new MutationObserver(read);
    observer.observe(body, { attributes: true, attributeFilter: ["class"] });
    window.addEventListener("pagehide", () => observer.disconnect());
  } else {
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    const read = (): void => {
      theme.value = dark.matches ? "dark" : "light";
    };
    read();
    dark.addEventListener("change", read);
  }
  return theme;
}

/** Our part of the address; TensorBoard's own keys, and other plugins', are none of our business. */
export function parseHash(hash: string): Link {
  const link: Record<string, string> = {};
  for (const part of hash.replace(/^#/, "").split("&")) {
    const [key = "", value = ""] = part.split("=", 2);
    const name = decode(key);
    if (name.startsWith(PREFIX)) link[name.slice(PREFIX.length)] = decode(value);
  }
  return link;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", "%20"));
  } catch {
    return text;
  }
}

function writeLink(home: HostWindow, link: Link, journey: boolean): void {
  const before = parseHash(home.location.hash);
  const names = [...new Set([...Object.keys(before), ...Object.keys(link)])];
  const changed = names.filter((name) => before[name] !== link[name]);
  if (changed.length === 0) return;
  const storage = home.tensorboard?.tf_storage;
  if (storage) {
    changed.forEach((name, index) => {
      const replace = !journey || index > 0;
      storage.setString(PREFIX + name, link[name] ?? "", { defaultValue: "", useLocationReplace: replace });
    });
    return;
  }
  const parts = Object.entries(link).map(([name, value]) => `${PREFIX}${name}=${encodeURIComponent(value)}`);
  const target = `${home.location.pathname}${home.location.search}#${parts.join("&")}`;
  if (journey) home.history.pushState(null, "", target);
  else home.history.replaceState(null, "", target);
}
