/** Notes of solved tasks on their way: the first goes at once, those of the next second go together. */

/** What `bridge.noteTasks` takes. */
export interface Note {
  readonly taskType: string;
  readonly count?: number | undefined;
  readonly cost?: number | undefined;
  readonly clientKey?: string | undefined;
}

const TOGETHER_MS = 1_000;
/** The bridge takes no more in one note. */
const MAX_COUNT = 1_000_000;

export class Notes {
  readonly #send: (note: Note) => void;
  readonly #waiting = new Map<string, Note>();
  #timer: NodeJS.Timeout | null = null;

  constructor(send: (note: Note) => void) {
    this.#send = send;
  }

  /** Sends a note, or adds it to one that waits for the end of the second. */
  add(note: Note): void {
    const { taskType, clientKey, count = 1, cost } = note;
    // Tasks of unknown cost stay apart: the bridge counts those whose cost is known.
    const name = JSON.stringify([taskType, clientKey, cost === undefined]);
    let before = this.#waiting.get(name);
    if (before !== undefined && (before.count ?? 1) + count > MAX_COUNT) {
      this.flush();
      before = undefined;
    }
    const sum = before === undefined ? note : { ...note, count: (before.count ?? 1) + count, ...(cost === undefined ? {} : { cost: (before.cost ?? 0) + cost }) };
    this.#waiting.set(name, sum);
    if (this.#timer === null) this.#beat();
  }

  /** Sends what waits, so that the bridge has it before what is sent next. */
  flush(): void {
    const notes = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const note of notes) this.#send(note);
  }

  #beat(): void {
    this.#timer = null;
    if (this.#waiting.size === 0) return;
    this.#timer = setTimeout(() => this.#beat(), TOGETHER_MS).unref();
    this.flush();
  }
}
