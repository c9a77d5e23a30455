/**
 * What a guest writes, as lines for a screen that is not its own. A program that draws a bar with
 * carriage returns, or moves back to overwrite, shows as on its terminal; what would go to other rows
 * begins a new line, so that nothing overwrites anything; and what asks the terminal a question, or
 * changes how it works, does not reach it.
 *
 * Everything may come in pieces, cut anywhere.
 *
 * @module
 */
import { widthOf } from "./layout.ts";

/** A character with the colours it is written in; an empty one is the right half of a wide one. */
interface Cell {
  char: string;
  sgr: string;
}

/** Lines that are done, and the one that goes on. */
export interface Lines {
  readonly lines: readonly string[];
  readonly open: string;
}

/** How large the screen is. */
export interface Size {
  columns(): number;
  rows(): number;
}

/** Longest line (columns); one that has no end goes on on the next. */
const MAX_LINE = 4096;
/** Longest control sequence that is waited for (characters). */
const MAX_SEQUENCE = 128;
/** Private modes that are on of themselves: wrapping, and the cursor. */
const SET_MODES: ReadonlySet<string> = new Set(["7", "25"]);
const PLAIN_LINE = /([\x20-\x7e]*)\r*\n/y;
const BLANK: Cell = { char: " ", sgr: "" };

/** Where in a control sequence the text is (ECMA-48 5.4, and xterm's strings). */
type State = "ground" | "escape" | "intermediate" | "csi" | "string" | "string-escape";

/** One source of text, and its line that is still open. */
export class ConsoleText {
  #cells: Cell[] = [];
  #column = 0;
  #sgr = "";
  #state: State = "ground";
  #sequence = "";
  #lines: string[] = [];
  #columns = 0;
  #limit = 0;
  /** What it would have changed of a terminal: private modes with their last final, and others. */
  readonly #modes = new Map<string, string>();
  readonly #others = new Set<"region" | "keypad" | "charset">();

  /**
   * @param screen movements stay within its width, as on a terminal; a line that fills half of it
   *   ends, because it has to be drawn again when it changes
   */
  constructor(private readonly screen: Size) {}

  /** Asks for the size once a piece of text: a terminal's is a system call away. */
  #measure(): void {
    this.#columns = this.screen.columns();
    this.#limit = Math.min(MAX_LINE, this.#columns * Math.max(1, this.screen.rows() >> 1));
  }

  /** The line that is still open, colours and all. */
  get open(): string {
    return render(this.#cells);
  }

  /** Takes text; gives the lines that it ended. */
  feed(text: string): Lines {
    this.#lines = [];
    this.#measure();
    for (let at = 0; at < text.length;) at = this.#plainLine(text, at) || this.#takeAt(text, at);
    return { lines: this.#lines, open: this.open };
  }

  /** A whole line of nothing but characters, as nearly all are; where it ends, 0 if there is none. */
  #plainLine(text: string, at: number): number {
    if (this.#state !== "ground" || this.#column || this.#cells.length || this.#sgr) return 0;
    PLAIN_LINE.lastIndex = at;
    const line = PLAIN_LINE.exec(text);
    if (!line || line[1].length > this.#limit) return 0;
    this.#lines.push(line[1]);
    return PLAIN_LINE.lastIndex;
  }

  #takeAt(text: string, at: number): number {
    const char = String.fromCodePoint(text.codePointAt(at)!);
    this.#take(char);
    return at + char.length;
  }

  /** The open line ends here, whatever comes next. */
  end(): void {
    this.#cells = [];
    this.#column = 0;
  }

  /**
   * What puts a terminal right that was given this text as it is: its own screen, a cursor that is
   * seen, no reports of the mouse (xterm's control sequences).
   */
  undo(): string {
    let text = "\x1b[0m";
    for (const [mode, final] of this.#modes) {
      const usual = SET_MODES.has(mode) ? "h" : "l";
      if (final !== usual) text += `\x1b[?${mode}${usual}`;
    }
    // Setting the scrolling region moves the cursor.
    if (this.#others.has("region")) text += "\x1b7\x1b[r\x1b8";
    if (this.#others.has("keypad")) text += "\x1b>";
    if (this.#others.has("charset")) text += "\x1b(B\x0f";
    this.#modes.clear();
    this.#others.clear();
    return text;
  }

  #take(char: string): void {
    const code = char.codePointAt(0)!;
    switch (this.#state) {
      case "ground":
        if (code === 0x1b) this.#state = "escape";
        else if (code < 0x20 || (code >= 0x7f && code < 0xa0)) this.#control(code);
        else this.#put(char);
        return;
      case "escape":
        return this.#escape(char, code);
      case "intermediate":
        // ESC ( B and the like: character sets.
        this.#others.add("charset");
        if (code < 0x20 || code > 0x2f) this.#state = "ground";
        return;
      case "csi":
        return this.#csi(char, code);
      case "string":
        if (code === 0x07 || code === 0x9c || code === 0x18 || code === 0x1a) {
          this.#state = "ground";
        } else if (code === 0x1b) this.#state = "string-escape";
        return;
      case "string-escape":
        // ESC \ ends it; any other sequence does, too, and begins itself.
        if (char === "\\") this.#state = "ground";
        else this.#escape(char, code);
    }
  }

  #escape(char: string, code: number): void {
    this.#sequence = "";
    if (char === "[") this.#state = "csi";
    else if ("]PX^_".includes(char)) this.#state = "string";
    else if (code >= 0x20 && code <= 0x2f) this.#state = "intermediate";
    else if (code === 0x1b) this.#state = "escape";
    else {
      this.#state = "ground";
      if (char === "=") this.#others.add("keypad");
      if ("DEMc".includes(char)) this.#newLine(); // index, next line, reverse index, reset
      else if (code < 0x20) this.#control(code);
    }
  }

  #csi(char: string, code: number): void {
    if (code === 0x1b) this.#state = "escape";
    else if (code < 0x20) this.#control(code);
    else if (code < 0x40) {
      this.#sequence += char;
      if (this.#sequence.length > MAX_SEQUENCE) this.#state = "ground";
    } else {
      this.#state = "ground";
      if (code < 0x7f) this.#function(char, this.#sequence);
    }
  }

  /** C0 and C1 control characters. */
  #control(code: number): void {
    switch (code) {
      case 0x08:
        this.#column = Math.max(0, this.#column - 1);
        break;
      case 0x09:
        this.#column = Math.min((this.#column | 7) + 1, this.#limit - 1);
        break;
      case 0x0a:
      case 0x0b:
      case 0x0c:
      case 0x84:
      case 0x85:
        return this.#newLine();
      case 0x0d:
        this.#column = 0;
        break;
      case 0x90:
      case 0x98:
      case 0x9d:
      case 0x9e:
      case 0x9f:
        this.#state = "string";
        break;
      case 0x9b:
        this.#sequence = "";
        this.#state = "csi";
    }
  }

  /** A control sequence by its final character. */
  #function(final: string, parameters: string): void {
    if (final === "m") return this.#colour(parameters);
    if (/^\?[\d;]+$/.test(parameters) && (final === "h" || final === "l")) {
      for (const mode of parameters.slice(1).split(";")) {
        if (this.#modes.size < MAX_SEQUENCE) this.#modes.set(mode, final);
      }
      return;
    }
    if (!/^[\d;]*$/.test(parameters)) return; // other vendors' own
    if (final === "r") this.#others.add("region");
    const [first = "", second = ""] = parameters.split(";");
    const n = Math.min(Math.max(1, Number(first)), MAX_LINE), cells = this.#cells;
    const last = Math.max(this.#columns, cells.length + 1) - 1;
    const blanks = (count: number) => Array.from({ length: count }, () => BLANK);
    switch (final) {
      case "C":
        this.#column = Math.min(this.#column + n, last);
        break;
      case "D":
        this.#column = Math.max(this.#column - n, 0);
        break;
      case "G":
      case "`":
        this.#column = Math.min(n - 1, last);
        break;
      case "K":
        if (Number(first) === 0) cells.length = Math.min(cells.length, this.#column);
        else {
          const end = Number(first) === 2 ? cells.length : Math.min(this.#column + 1, cells.length);
          cells.splice(0, end, ...blanks(end));
        }
        break;
      case "P":
        cells.splice(this.#column, n);
        break;
      case "@":
        if (this.#column < cells.length) cells.splice(this.#column, 0, ...blanks(n));
        cells.length = Math.min(cells.length, MAX_LINE);
        break;
      case "X":
        for (let i = 0; i < n && this.#column + i < cells.length; i++) {
          cells[this.#column + i] = BLANK;
        }
        break;
      case "J":
        if (Number(first) === 0) cells.length = Math.min(cells.length, this.#column);
        else this.#freshLine(0);
        break;
      case "H":
      case "f":
        this.#freshLine(Math.min(Math.max(1, Number(second)) - 1, last));
        break;
      case "A":
      case "B":
      case "d":
      case "u":
        this.#freshLine(this.#column);
        break;
      case "E":
      case "F":
        this.#freshLine(0);
    }
  }

  #colour(parameters: string): void {
    if (!/^[\d;:]*$/.test(parameters)) return;
    const plain = parameters.split(";").every((it) => Number(it) === 0);
    const next = `${this.#sgr}\x1b[${parameters}m`;
    this.#sgr = plain ? "" : next.length > MAX_SEQUENCE ? `\x1b[${parameters}m` : next;
  }

  #put(char: string): void {
    const width = widthOf(char), cells = this.#cells;
    if (width === 0) {
      const before = cells[Math.min(this.#column, cells.length) - 1];
      // A mark stands on the character before it; many of them are no text.
      if (before && before.char.length < 16) {
        cells[Math.min(this.#column, cells.length) - 1] = { ...before, char: before.char + char };
      }
      return;
    }
    if (this.#column + width > this.#limit) this.#newLine();
    while (cells.length < this.#column) this.#cells.push(BLANK);
    this.#cells[this.#column] = { char, sgr: this.#sgr };
    if (width === 2) this.#cells[this.#column + 1] = { char: "", sgr: this.#sgr };
    this.#column += width;
  }

  #newLine(): void {
    this.#lines.push(this.open);
    this.end();
  }

  /** The cursor goes to another row: what it writes there stands on a line of its own. */
  #freshLine(column: number): void {
    if (this.#cells.length > 0) this.#newLine();
    this.#column = column;
  }
}

function render(cells: readonly Cell[]): string {
  let text = "", sgr = "";
  for (const cell of cells) {
    if (cell.sgr !== sgr) {
      text += sgr ? `\x1b[0m${cell.sgr}` : cell.sgr;
      sgr = cell.sgr;
    }
    text += cell.char;
  }
  return sgr ? `${text}\x1b[0m` : text;
}
