// deno-lint-ignore-file no-control-regex
import type { Screen } from "./display.ts";

/** A terminal for tests: understands what the display writes, and shows it as lines. */
export class TestScreen implements Screen {
  readonly #columns: number;
  #lines: string[][] = [[]];
  #row = 0;
  #column = 0;

  constructor(columns = 40) {
    this.#columns = columns;
  }

  columns(): number {
    return this.#columns;
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

  write(text: string): void {
    for (const [token] of text.matchAll(/\x1b\[([0-9;?]*)([A-Za-z])|[^]/g)) {
      if (token.length > 1) this.#escape(token);
      else if (token === "\r") this.#column = 0;
      else if (token === "\n") this.#down();
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
    if (final === "A") this.#row -= count;
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
