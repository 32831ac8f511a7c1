/** A button that opens a searchable list. */
import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { shortened } from "../domain/format";
import { Icon } from "./icons";

export interface Choice {
  readonly value: string;
  readonly text: string;
  readonly note?: string;
  readonly mark?: "alarm" | "warning" | "ok";
}

interface Props {
  readonly label: string;
  readonly current: string;
  readonly choices: readonly Choice[];
  readonly onChoose: (value: string) => void;
  /** Key that opens the list from anywhere. */
  readonly shortcut?: string;
}

const SEARCH_FROM = 7;
const MOST_SHOWN = 200;
/** Of a name; titles have all of it. */
const [MOST_LETTERS, MOST_LETTERS_LISTED] = [30, 54];
/** Pixels between the list and the edge of the page. */
const MARGIN = 8;

export function Chooser({ label, current, choices, onChoose, shortcut }: Props) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!open) return;
    const outside = (event: Event): void => {
      if (!root.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    document.addEventListener("focusin", outside);
    window.addEventListener("blur", () => setOpen(false), { once: true });
    return () => {
      document.removeEventListener("pointerdown", outside);
      document.removeEventListener("focusin", outside);
    };
  }, [open]);
  const close = (): void => {
    setOpen(false);
    button.current?.focus();
  };
  return (
    <div class="chooser" ref={root}>
      <button
        ref={button}
        type="button"
        class="button chooser-button"
        aria-haspopup="listbox"
        aria-expanded={open}
        data-shortcut={shortcut}
        title={`${label}: ${current}${shortcut ? ` (${shortcut})` : ""}`}
        onClick={() => setOpen(!open)}
      >
        <span class="chooser-label">{label}</span>
        <span class="chooser-current">{shortened(current, MOST_LETTERS)}</span>
        <Icon name="down" />
      </button>
      {open && (
        <Popup
          label={label}
          current={current}
          choices={choices}
          onClose={close}
          onChoose={(value) => {
            close();
            onChoose(value);
          }}
        />
      )}
    </div>
  );
}

interface PopupProps extends Omit<Props, "shortcut"> {
  readonly onClose: () => void;
}

function Popup({ label, current, choices, onChoose, onClose }: PopupProps) {
  const id = useId();
  const [text, setText] = useState("");
  const found = useMemo(() => matching(choices, text), [choices, text]);
  const [active, setActive] = useState(() =>
    Math.max(
      0,
      choices.findIndex((choice) => choice.text === current),
    ),
  );
  const list = useRef<HTMLDivElement>(null);
  const input = useRef<HTMLInputElement>(null);
  const popup = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    // Beyond the edge of the page it would push everything else aside.
    const box = popup.current?.getBoundingClientRect();
    const beyond = box ? box.right + MARGIN - window.innerWidth : 0;
    if (box && popup.current && beyond > 0) popup.current.style.left = `${-Math.min(beyond, box.left - MARGIN)}px`;
  }, []);
  useEffect(() => input.current?.focus(), []);
  useEffect(() => {
    list.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [active, found]);
  const key = (event: KeyboardEvent): void => {
    const moves: Readonly<Record<string, number>> = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    const move = moves[event.key];
    const choice = found[active];
    if (move !== undefined) setActive(Math.min(Math.max(active + move, 0), found.length - 1));
    else if (event.key === "Enter" && choice) onChoose(choice.value);
    else if (event.key === "Escape") onClose();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="popup" ref={popup}>
      <input
        ref={input}
        class={choices.length >= SEARCH_FROM ? "input" : "sr-only"}
        type="text"
        role="combobox"
        aria-label={label}
        aria-expanded="true"
        aria-controls={`${id}-list`}
        aria-autocomplete="list"
        aria-activedescendant={found.length > 0 ? `${id}-${active}` : undefined}
        placeholder={`Find in ${choices.length}`}
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setActive(0);
        }}
        onKeyDown={key}
      />
      <div class="popup-list" role="listbox" id={`${id}-list`} aria-label={label} ref={list}>
        {found.slice(0, MOST_SHOWN).map((choice, index) => (
          <div
            key={choice.value}
            id={`${id}-${index}`}
            role="option"
            tabIndex={-1}
            aria-selected={index === active}
            class="option"
            onPointerMove={() => setActive(index)}
            onClick={() => onChoose(choice.value)}
          >
            {choice.mark && <i class={`dot level-${choice.mark}`} title={choice.mark} />}
            <span class="option-text" title={choice.text}>
              {shortened(choice.text, MOST_LETTERS_LISTED)}
            </span>
            {choice.note && <span class="hint">{choice.note}</span>}
          </div>
        ))}
      </div>
      {found.length === 0 && <p class="hint popup-note">Nothing matches.</p>}
      {found.length > MOST_SHOWN && (
        <p class="hint popup-note">{found.length - MOST_SHOWN} more: type to narrow down.</p>
      )}
    </div>
  );
}

/** Choices that contain every word; those that begin with the text come first. */
export function matching(choices: readonly Choice[], text: string): Choice[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = choices.filter((choice) => words.every((word) => choice.text.toLowerCase().includes(word)));
  const begins = (choice: Choice): boolean => choice.text.toLowerCase().startsWith(words[0] ?? "");
  return [...found.filter(begins), ...found.filter((choice) => !begins(choice))];
}
