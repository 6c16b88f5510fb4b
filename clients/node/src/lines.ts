/** Cuts a stream of bytes into lines. Knows nothing of JSON; does no I/O. */

const LF = 0x0a;
const CR = 0x0d;

export interface LineSplitterOptions {
  /** Longest line in bytes; a longer one is dropped up to its LF, so that memory stays flat. */
  readonly maxBytes: number;
  /** Gets each line that is not blank, without LF and without one CR before it. */
  onLine(line: string): void;
  /** Called once for each line that was too long. */
  onTooLong(): void;
}

/**
 * Splits on LF only, on bytes: U+2028 is no line end, and a character that arrives in two chunks
 * is put together before it is decoded. (`readline` does neither.)
 */
export class LineSplitter {
  readonly #options: LineSplitterOptions;
  #parts: Buffer[] = [];
  #size = 0;
  #dropping = false;

  constructor(options: LineSplitterOptions) {
    this.#options = options;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(LF); end !== -1; end = chunk.indexOf(LF, start)) {
      this.#add(chunk.subarray(start, end));
      this.#finishLine();
      start = end + 1;
    }
    this.#add(chunk.subarray(start));
  }

  /** End of input: a last line without LF counts. */
  end(): void {
    this.#finishLine();
  }

  #add(part: Buffer): void {
    if (part.length === 0 || this.#dropping) return;
    this.#size += part.length;
    if (this.#size > this.#options.maxBytes) {
      this.#dropping = true;
      this.#parts = [];
      this.#options.onTooLong();
      return;
    }
    this.#parts.push(part);
  }

  #finishLine(): void {
    const parts = this.#parts;
    this.#parts = [];
    this.#size = 0;
    this.#dropping = false;
    const [first] = parts;
    if (first === undefined) return;
    let line = parts.length === 1 ? first : Buffer.concat(parts);
    if (line[line.length - 1] === CR) line = line.subarray(0, -1);
    const text = line.toString("utf8");
    if (text.trim() !== "") this.#options.onLine(text);
  }
}
