import { ConsoleText, type Size } from "./console_text.ts";
import { type Layout, textWidth } from "./layout.ts";

/** What the display needs of a terminal. */
export interface Screen extends Size {
  write(text: string): void;
}

/** The prompt as it stands on the screen: columns of its rows, and the cursor. */
interface Drawn {
  readonly widths: readonly number[];
  readonly row: number;
  readonly column: number;
}

/**
 * Draws the prompt, and prints other text above it. The last unfinished line of that text (a guest's
 * `login: `) stays open: what comes next from the same source continues it.
 */
export class Display {
  readonly #screen: Screen;
  readonly #texts = new Map<unknown, ConsoleText>();
  /** Lines that were ended for their sources, which may still be writing them. */
  readonly #ended = new Map<unknown, string>();
  #drawn: Drawn | undefined;
  /** Whose line is open, and how it stands on the screen. */
  #source: unknown;
  #open = "";

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  /** Draws the prompt, in place of the one drawn before. */
  draw(layout: Layout): void {
    const { rows, cursorRow, cursorColumn } = this.#fitted(layout);
    let text = this.#erase();
    if (!this.#drawn && this.#open) text += "\r\n";
    text += rows.join("\r\n");
    if (rows.length - 1 > cursorRow) text += `\x1b[${rows.length - 1 - cursorRow}A`;
    text += `\r${cursorColumn ? `\x1b[${cursorColumn}C` : ""}`;
    this.#drawn = { widths: rows.map(textWidth), row: cursorRow, column: cursorColumn };
    this.#screen.write(text);
  }

  /** Of a prompt that is higher than the screen, the part around the cursor. */
  #fitted(layout: Layout): Layout {
    const { rows, cursorRow } = layout;
    const open = this.#open ? this.#rowsOf(textWidth(this.#open)) : 0;
    const height = Math.max(2, this.#screen.rows() - 1 - open);
    if (rows.length <= height) return layout;
    const from = Math.min(Math.max(0, cursorRow - height + 1), rows.length - height);
    return { ...layout, rows: rows.slice(from, from + height), cursorRow: cursorRow - from };
  }

  /** Leaves the prompt as it stands, and goes below it. */
  leave(last: Layout): void {
    const open = !this.#drawn && this.#open ? "\r\n" : "";
    this.#screen.write(`${this.#erase()}${open}${last.rows.join("\r\n")}\r\n`);
    this.#drawn = undefined;
    this.#closeLine();
  }

  /**
   * Prints above the prompt, or just prints when none is drawn. The caller draws the prompt again.
   *
   * @param source who speaks: an open line of another source ends first
   */
  print(text: string, source: unknown = this): void {
    if (text === "") return;
    let out = "", before = this.#open;
    if (this.#drawn) out = this.#erase() + (before ? this.#upTo(before) : "");
    if (source !== this.#source && before) {
      out += this.#drawn ? `${before}\r\n` : "\r\n";
      this.#closeLine();
      before = "";
    }
    this.#source = source;
    this.#ended.delete(source);
    const { lines, open } = this.#textOf(source).feed(text);
    const whole = [...lines, open].join("\r\n");
    if (this.#drawn || !before) out += whole;
    // Nothing but more of the same line, as it nearly always is.
    else if (whole.startsWith(before)) out += whole.slice(before.length);
    else out += `${this.#back(before)}${whole}`;
    this.#drawn = undefined;
    this.#open = open;
    this.#screen.write(out);
  }

  /** The line that a source is writing, even if something else was printed since. */
  openLine(source: unknown): string {
    return this.#texts.get(source)?.open || (this.#ended.get(source) ?? "");
  }

  /** Writes a source's text as it is: the terminal is its own. */
  pass(text: string, source: unknown): void {
    this.#ended.delete(source);
    this.#textOf(source).feed(text);
    this.#screen.write(text);
  }
  /** The terminal is ours again, whatever a source did to it. */
  reclaim(source: unknown): void {
    this.#screen.write(`${this.#textOf(source).undo()}\r\n`);
    this.forget();
  }

  /** Ends an open line of output. */
  freshLine(): void {
    if (!this.#open) return;
    if (this.#drawn) this.print("\n", this.#source);
    else this.#screen.write("\r\n");
    this.#closeLine();
  }

  /** Forgets what is drawn: the screen was cleared, or something else wrote on it. */
  forget(): void {
    this.#drawn = undefined;
    this.#closeLine();
  }

  #closeLine(): void {
    if (this.#open) this.#ended.set(this.#source, this.#open);
    this.#texts.get(this.#source)?.end();
    this.#open = "";
  }

  #textOf(source: unknown): ConsoleText {
    let text = this.#texts.get(source);
    if (!text) this.#texts.set(source, text = new ConsoleText(this.#screen));
    return text;
  }

  /**
   * What puts the cursor at the drawn prompt's start and clears from there. The screen may have become
   * narrower, and wrapped what stood on it.
   */
  #erase(): string {
    if (!this.#drawn) return "";
    const { widths, row, column } = this.#drawn;
    const above = widths.slice(0, row).reduce((sum, w) => sum + this.#rowsOf(w), 0) +
      Math.floor(column / this.#screen.columns());
    return `${above ? `\x1b[${above}A` : ""}\r\x1b[J`;
  }
  #rowsOf(width: number): number {
    return Math.max(1, Math.ceil(width / this.#screen.columns()));
  }
  /** From the start of the row below an open line to its start, and clear. */
  #upTo(open: string): string {
    return `\x1b[${this.#rowsOf(textWidth(open))}A\r\x1b[J`;
  }
  /** From the end of an open line to its start, and clear. */
  #back(open: string): string {
    const rows = this.#rowsOf(textWidth(open)) - 1;
    return `${rows ? `\x1b[${rows}A` : ""}\r\x1b[J`;
  }
}
