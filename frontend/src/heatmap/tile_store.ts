/** Tiles in memory: the last 64, each with the picture made of it; requests follow what is wanted now. */
import { LruCache } from "../api/lru";
import { type ApiError, failure, type Result, success } from "../api/result";
import { type Picture, paintPicture } from "../ui/picture";
import { cellBytes, type TileData, type TilePainter } from "./painters";
import { rowsOf, type TileKey, tileId } from "./tiles";

interface Entry {
  readonly data: TileData;
  picture: Picture | null;
  painter: string | null;
}

export type LoadTile = (key: TileKey, signal: AbortSignal) => Promise<Result<ArrayBuffer>>;

const CAPACITY = 64;

export class TileStore {
  readonly #entries = new LruCache<Entry>(CAPACITY);
  readonly #loading = new Map<string, AbortController>();
  readonly #ensured = new Map<string, Promise<TileData | null>>();
  #wanted: ReadonlySet<string> = new Set();
  readonly #failed = new Map<string, ApiError>();

  constructor(
    readonly load: LoadTile,
    readonly onChange: () => void,
  ) {}

  /** Ask for these tiles, most urgent first, and for no others: what is in flight beyond them is dropped. */
  want(keys: readonly TileKey[]): void {
    const ids = new Set(keys.map(tileId));
    this.#wanted = ids;
    for (const [id, controller] of this.#loading) {
      if (ids.has(id)) continue;
      controller.abort();
      this.#loading.delete(id);
    }
    for (const key of keys) this.#request(key);
  }

  get(key: TileKey): TileData | null {
    return this.#entries.get(tileId(key))?.data ?? null;
  }

  /** The tile's picture in the painter's colours, painted if need be; null while its bytes are not here. */
  picture(key: TileKey, painter: TilePainter): Picture | null {
    const entry = this.#entries.get(tileId(key));
    if (!entry) return null;
    if (entry.painter !== painter.id || !entry.picture) {
      const { records, rows } = entry.data;
      entry.picture = paintPicture(records, rows, (pixels) => painter.paint(entry.data, pixels), entry.picture);
      entry.painter = painter.id;
    }
    return entry.picture;
  }

  /** The tile now or once it has come, whatever is wanted meanwhile; null if it does not come. */
  ensure(key: TileKey): Promise<TileData | null> {
    const id = tileId(key);
    const here = this.get(key);
    return here ? Promise.resolve(here) : (this.#ensured.get(id) ?? this.#fetch(id, key));
  }

  #fetch(id: string, key: TileKey): Promise<TileData | null> {
    const asked = this.load(key, new AbortController().signal).then((result) => {
      this.#ensured.delete(id);
      const checked = checkShape(key, result);
      if (!checked.ok) return null;
      if (!this.#entries.peek(id)) this.#entries.set(id, { data: checked.value, picture: null, painter: null });
      return checked.value;
    });
    this.#ensured.set(id, asked);
    return asked;
  }

  /** Why a tile that was wanted last did not come, if so. */
  get failure(): ApiError | null {
    for (const id of this.#wanted) {
      const error = this.#failed.get(id);
      if (error) return error;
    }
    return null;
  }

  retry(): void {
    this.#failed.clear();
    this.onChange();
  }

  dispose(): void {
    for (const controller of this.#loading.values()) controller.abort();
    this.#loading.clear();
    this.#entries.clear();
  }

  #request(key: TileKey): void {
    const id = tileId(key);
    if (this.#entries.peek(id) || this.#loading.has(id) || this.#failed.has(id)) return;
    const controller = new AbortController();
    this.#loading.set(id, controller);
    void this.load(key, controller.signal).then((result) => {
      if (controller.signal.aborted) return;
      this.#loading.delete(id);
      const checked = checkShape(key, result);
      if (checked.ok) this.#entries.set(id, { data: checked.value, picture: null, painter: null });
      else this.#failed.set(id, checked.error);
      this.onChange();
    });
  }
}

/** A run that grows may answer with more records than were known when the question was asked. */
function checkShape(key: TileKey, result: Result<ArrayBuffer>): Result<TileData> {
  if (!result.ok) return result;
  const bytes = result.value;
  const rows = rowsOf(key);
  const records = bytes.byteLength / (rows * cellBytes(key));
  if (!Number.isInteger(records) || records === 0) {
    return failure("broken", `A part of the heatmap has ${bytes.byteLength} bytes, which is no number of records.`);
  }
  return success({ key, rows, records, bytes });
}
