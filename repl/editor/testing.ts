// deno-lint-ignore-file no-control-regex
import type { Screen } from "./display.ts";

/**
 * A terminal for tests: understands what the display writes, and shows it as lines. Rows above the
 * screen are kept, but the cursor does not go back to them.
 */
export class TestScreen implements Screen {
  #columns: number;
  readonly #rows: number;
  #lines: string[][] = [[]];
  #row = 0;
  #column = 0;
  /** All that was written. */
  written = "";

  constructor(columns = 40, rows = 1000) {
    this.#columns = columns;
    this.#rows = rows;
  }

  columns(): number {
    return this.#columns;
  }
  rows(): number {
    return this.#rows;
  }

  /** The screen, without spaces at ends of lines. */
  get text(): string {
    return this.#lines.map((line) => Array.from(line, (it) => it ?? " ").join("").trimEnd()).join(
      "\n",
    );
  }

  /** Row and column of the cursor. */
  get cursor(): [number, number] {
    return [this.#row, this.#column];
  }

  /** The window gets another width: as most terminals do, long rows are wrapped anew. */
  resize(columns: number): void {
    const before = this.#lines, at = this.#row;
    this.#lines = [];
    before.forEach((line, row) => {
      if (row === at) {
        this.#row = this.#lines.length + Math.floor(this.#column / columns);
      }
      for (let from = 0; from === 0 || from < line.length; from += columns) {
        this.#lines.push(line.slice(from, from + columns));
      }
    });
    this.#column %= columns;
    this.#columns = columns;
    while (this.#lines.length <= this.#row) this.#lines.push([]);
  }

  write(text: string): void {
    this.written += text;
    for (const [token] of text.matchAll(/\x1b\[([0-9;?]*)([A-Za-z])|[^]/gu)) {
      if (/^\x1b./.test(token)) this.#escape(token);
      else if (token === "\r") this.#column = 0;
      else if (token === "\n") this.#down();
      else if (token < " ") throw new Error(`a control character: ${JSON.stringify(token)}`);
      else {
        if (this.#column === this.#columns) {
          this.#column = 0;
          this.#down();
        }
        this.#lines[this.#row][this.#column++] = token;
      }
    }
  }

  #down(): void {
    this.#row++;
    this.#lines[this.#row] ??= [];
  }

  #escape(token: string): void {
    const count = Number(token.slice(2, -1)) || 1;
    const final = token.at(-1);
    const top = Math.max(0, this.#lines.length - this.#rows);
    if (final === "A") this.#row = Math.max(top, this.#row - count);
    else if (final === "C") this.#column += count;
    else if (final === "J" && token === "\x1b[2J") this.#lines = [[]];
    else if (final === "J") {
      this.#lines.length = this.#row + 1;
      this.#lines[this.#row].length = Math.min(this.#lines[this.#row].length, this.#column);
    } else if (final === "H") [this.#row, this.#column] = [0, 0];
    else if (final !== "m") {
      throw new Error(`the test screen does not know ${JSON.stringify(token)}`);
    }
  }
}
