// deno-lint-ignore-file no-control-regex
import { type Layout, textWidth } from "./layout.ts";

/** What the display needs of a terminal. */
export interface Screen {
  write(text: string): void;
  columns(): number;
}

/**
 * Draws the prompt, and prints other text above it. The last unfinished line of that text (a guest's
 * `login: `) stays open: what comes next continues it.
 */
export class Display {
  readonly #screen: Screen;
  /** Rows of the drawn prompt; 0 when none is drawn. */
  #rows = 0;
  #cursorRow = 0;
  /** The open line of the output, and whether the prompt pushed a line break behind it. */
  #open = "";

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  /** Draws the prompt, in place of the one drawn before. */
  draw({ rows, cursorRow, cursorColumn }: Layout): void {
    let text = this.#erase();
    if (this.#rows === 0 && this.#open) text += "\r\n";
    text += rows.join("\r\n");
    if (rows.length - 1 > cursorRow) text += `\x1b[${rows.length - 1 - cursorRow}A`;
    text += `\r${cursorColumn ? `\x1b[${cursorColumn}C` : ""}`;
    this.#rows = rows.length;
    this.#cursorRow = cursorRow;
    this.#screen.write(text);
  }

  /** Leaves the prompt as it stands, and goes below it. */
  leave(last: Layout): void {
    this.draw({ ...last, cursorRow: last.rows.length - 1, cursorColumn: 0 });
    this.#screen.write("\r\n");
    this.#rows = 0;
    this.#open = "";
  }

  /** Prints above the prompt, or just prints when none is drawn. The caller draws the prompt again. */
  print(text: string): void {
    let out = this.#erase();
    if (this.#rows > 0 && this.#open) {
      const rows = Math.max(1, Math.ceil(textWidth(this.#open) / this.#screen.columns()));
      out += `\x1b[${rows}A\r\x1b[J${this.#open}`;
    }
    this.#rows = 0;
    const clean = visible(text);
    this.#open = (this.#open + clean).replace(/^[^]*\n/, "").replace(/^[^]*\r/, "");
    this.#screen.write(out + clean.replaceAll("\n", "\r\n"));
  }

  /** Ends an open line of output. */
  freshLine(): void {
    if (this.#open) this.print("\n");
  }

  /** Forgets what is drawn: the screen was cleared, or something else wrote on it. */
  forget(): void {
    this.#rows = 0;
    this.#open = "";
  }

  /** What puts the cursor at the drawn prompt's start and clears from there. */
  #erase(): string {
    if (this.#rows === 0) return "";
    return `${this.#cursorRow ? `\x1b[${this.#cursorRow}A` : ""}\r\x1b[J`;
  }
}

/** Text without what would move the cursor about: colours, tabs and line breaks stay. */
export function visible(text: string): string {
  return text
    .replace(/\r+\n/g, "\n")
    .replace(
      /\x1b\[[0-9;]*m|\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|\][^\x07]*\x07|[=>A-Za-z])/g,
      (it) => it.endsWith("m") ? it : "",
    )
    .replace(/[\x00-\x08\x0b-\x0c\x0e-\x1a]/g, "");
}
