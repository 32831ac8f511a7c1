/** Word of new data: TensorBoard's own, over a message port, or the clock where that is not available. */

interface Message {
  readonly type: string;
  readonly id: number;
  readonly isReply: boolean;
}

const ANSWER_MILLISECONDS = 3_000;

/** Calls back at each reload of TensorBoard, or every `poll` milliseconds while the tab is on screen. */
export function listenForReload(parent: Window | null, callback: () => void, poll: number): void {
  let polling = false;
  const startPolling = (): void => {
    if (polling) return;
    polling = true;
    window.setInterval(() => {
      if (!document.hidden && window.innerHeight > 0) callback();
    }, poll);
  };
  if (!parent) {
    startPolling();
    return;
  }
  const patience = window.setTimeout(startPolling, ANSWER_MILLISECONDS);
  try {
    const { port1: port, port2: theirs } = new MessageChannel();
    port.onmessage = (event: MessageEvent<unknown>) => {
      const message = parse(event.data);
      if (!message) return;
      window.clearTimeout(patience);
      if (message.isReply) return;
      if (message.type === "experimental.DataReloaded") callback();
      port.postMessage(JSON.stringify({ ...message, payload: null, error: null, isReply: true }));
    };
    parent.postMessage("experimental.bootstrap", window.location.origin, [theirs]);
    const question = { type: "experimental.GetRuns", id: 0, payload: null, error: null, isReply: false };
    port.postMessage(JSON.stringify(question));
  } catch {
    startPolling();
  }
}

function parse(data: unknown): Message | null {
  try {
    const message: unknown = JSON.parse(String(data));
    return typeof message === "object" && message !== null && "type" in message ? (message as Message) : null;
  } catch {
    return null;
  }
}
