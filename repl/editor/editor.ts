/**
 * The line editor: keys in, whole inputs out. It knows a screen and what its owner tells it, no
 * terminal and no language.
 *
 * @module
 */
import { Buffer } from "./buffer.ts";
import { Display, type Screen } from "./display.ts";
import { History } from "./history.ts";
import { type Key, KeyDecoder } from "./keys.ts";
import { columnsOf, type Layout, layout } from "./layout.ts";

/** What Tab found: `items` can stand in place of the text from `from` to the cursor. */
export interface Completion {
  from: number;
  items: string[];
}

/** What the owner of an editor tells it. */
export interface EditorOptions {
  screen: Screen;
  history?: History;
  /** The prompt, asked for each time an input begins. */
  prompt?: () => string;
  continuation?: string;
  /** Whether Enter takes the input; else it adds a line. */
  isWhole?: (text: string) => boolean | Promise<boolean>;
  complete?: (text: string, cursor: number) => Completion | Promise<Completion>;
}

/** What became of an input: a text, nothing (ctrl-C), or the end (ctrl-D). */
export type Input = { kind: "text"; text: string } | { kind: "cancelled" } | { kind: "end" };

const MAX_LISTED = 200;

/** One editor for a whole session. */
export class Editor {
  readonly history: History;
  readonly display: Display;
  readonly #options: EditorOptions;
  readonly #buffer = new Buffer();
  readonly #keys = new KeyDecoder();
  /** Keys that came before they were wanted. */
  #ahead: Key[] = [];
  #prompt = "";
  #done?: (input: Input) => void;
  #search?: { text: string; at: number; before: string };
  #busy = false;

  constructor(options: EditorOptions) {
    this.#options = options;
    this.history = options.history ?? new History();
    this.display = new Display(options.screen);
  }

  /** Whether a prompt is on the screen. */
  get active(): boolean {
    return this.#done !== undefined;
  }

  /** Shows the prompt and resolves when an input is whole. */
  read(): Promise<Input> {
    this.#prompt = this.#options.prompt?.() ?? "> ";
    this.#buffer.set("");
    this.history.reset();
    return new Promise((resolve) => {
      this.#done = resolve;
      this.#draw();
      void this.#work();
    });
  }

  /** Takes bytes from the terminal. */
  feed(bytes: Uint8Array): void {
    this.#ahead.push(...this.#keys.feed(bytes));
    void this.#work();
  }

  /** Takes a key from elsewhere: ctrl-C comes as a signal. */
  press(name: string): void {
    this.#ahead.push({ name });
    void this.#work();
  }

  /** Forgets keys that came ahead. */
  discard(): void {
    this.#ahead = [];
  }

  /** Ends the input being written, as ctrl-D on an empty line would. */
  cancel(): void {
    if (this.active) this.#finish({ kind: "end" });
  }

  /** Prints above the prompt, or plainly when there is none; `source` is who speaks. */
  print(text: string, source?: unknown): void {
    this.display.print(text, source);
    if (this.active) this.#draw();
  }

  /** Draws the prompt again, after something else wrote on the screen. */
  refresh(): void {
    if (this.active) this.#draw();
  }

  async #work(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.active && this.#ahead.length > 0) {
        await this.#press(this.#ahead.shift()!);
        if (this.active) this.#draw();
      }
    } finally {
      this.#busy = false;
    }
  }

  #layout(): Layout {
    const columns = this.#options.screen.columns();
    if (this.#search) {
      const { text, at } = this.#search;
      const found = this.history.entries[at] ?? "";
      const prompt = `(search) '${text}': `;
      return layout(prompt, "  ", found, Math.max(0, found.indexOf(text)), columns);
    }
    const { text, cursor } = this.#buffer;
    return layout(this.#prompt, this.#options.continuation ?? "  ", text, cursor, columns);
  }

  #draw(): void {
    this.display.draw(this.#layout());
  }

  #finish(input: Input): void {
    this.#buffer.cursor = this.#buffer.text.length;
    this.display.leave(this.#layout());
    const done = this.#done;
    this.#done = undefined;
    done?.(input);
  }

  async #press(key: Key): Promise<void> {
    if (this.#search && this.#searchKey(key)) return;
    if (key.name === "text") this.#insert(key.text!);
    else if (key.name === "paste") this.#buffer.insert(key.text!);
    else if (key.name === "enter") await this.#enter();
    else if (key.name === "tab") await this.#tab();
    else ACTIONS[key.name]?.(this.#buffer, this.#moves);
  }

  /** What a key may do besides editing. */
  readonly #moves: Moves = {
    previous: () => {
      const entry = this.history.previous(this.#buffer.text);
      if (entry !== null) this.#buffer.set(entry);
    },
    next: () => {
      const entry = this.history.next();
      if (entry !== null) this.#buffer.set(entry);
    },
    cancel: () => {
      this.#buffer.cursor = this.#buffer.text.length;
      if (this.#buffer.text) this.#buffer.insert("^C");
      this.#finish({ kind: "cancelled" });
    },
    end: () => this.#finish({ kind: "end" }),
    clear: () => {
      this.#options.screen.write("\x1b[H\x1b[2J");
      this.display.forget();
    },
    search: () => void (this.#search = { text: "", at: -1, before: this.#buffer.text }),
  };

  /** A closing bracket that begins its line goes back one step. */
  #insert(text: string): void {
    const line = this.#buffer.text.slice(0, this.#buffer.cursor).match(/\n {2,}$/);
    if (line && /^[)\]}]/.test(text)) this.#buffer.backspace(), this.#buffer.backspace();
    this.#buffer.insert(text);
  }

  async #enter(): Promise<void> {
    const { text } = this.#buffer;
    const whole = this.#options.isWhole ? await this.#options.isWhole(text) : true;
    if (!whole) {
      this.#buffer.insert(`\n${indent(text.slice(0, this.#buffer.cursor))}`);
      return;
    }
    this.history.add(text);
    this.#finish({ kind: "text", text });
  }

  async #tab(): Promise<void> {
    const { text, cursor } = this.#buffer;
    const before = text.slice(0, cursor);
    if (/(^|\n)\s*$/.test(before)) return this.#buffer.insert("  ");
    if (!this.#options.complete) return;
    const { from, items } = await this.#options.complete(text, cursor);
    if (items.length === 0 || this.#buffer.text !== text) return;
    const common = items.reduce(commonStart);
    if (items.length === 1 || common.length > cursor - from) {
      this.#buffer.replaceBack(from, common);
      return;
    }
    const shown = items.slice(0, MAX_LISTED);
    const more = items.length - shown.length;
    const list = columnsOf(shown, this.#options.screen.columns());
    this.print(`${list}\n${more > 0 ? `… and ${more} more\n` : ""}`);
  }

  /** Keys while ctrl-R searches; false hands the key on, with what was found. */
  #searchKey(key: Key): boolean {
    const search = this.#search!;
    const find = (text: string, before?: number) => {
      const at = this.history.search(text, before);
      this.#search = {
        ...search,
        text,
        at: at < 0 && text.startsWith(search.text) ? search.at : at,
      };
    };
    if (key.name === "text") find(search.text + key.text);
    else if (key.name === "backspace") find(search.text.slice(0, -1));
    else if (key.name === "ctrl-r") find(search.text, search.at < 0 ? undefined : search.at);
    else {
      this.#search = undefined;
      const left = key.name === "ctrl-g" || key.name === "ctrl-c" || key.name === "escape";
      this.#buffer.set(left ? search.before : this.history.entries[search.at] ?? search.before);
      return left;
    }
    return true;
  }
}

interface Moves {
  previous(): void;
  next(): void;
  cancel(): void;
  end(): void;
  clear(): void;
  search(): void;
}

const ACTIONS: Record<string, (buffer: Buffer, moves: Moves) => void> = {
  "left": (it) => it.left(),
  "ctrl-b": (it) => it.left(),
  "right": (it) => it.right(),
  "ctrl-f": (it) => it.right(),
  "ctrl-left": (it) => it.wordLeft(),
  "alt-left": (it) => it.wordLeft(),
  "alt-b": (it) => it.wordLeft(),
  "ctrl-right": (it) => it.wordRight(),
  "alt-right": (it) => it.wordRight(),
  "alt-f": (it) => it.wordRight(),
  "home": (it) => it.home(),
  "ctrl-a": (it) => it.home(),
  "end": (it) => it.end(),
  "ctrl-e": (it) => it.end(),
  "up": (it, moves) => it.up() || moves.previous(),
  "down": (it, moves) => it.down() || moves.next(),
  "ctrl-p": (_, moves) => moves.previous(),
  "ctrl-n": (_, moves) => moves.next(),
  "backspace": (it) => it.backspace(),
  "ctrl-h": (it) => it.backspace(),
  "delete": (it) => it.delete(),
  "ctrl-d": (it, moves) => it.text ? it.delete() : moves.end(),
  "ctrl-k": (it) => it.killToEnd(),
  "ctrl-u": (it) => it.killToStart(),
  "ctrl-w": (it) => it.killWordLeft(),
  "alt-backspace": (it) => it.killWordLeft(),
  "alt-d": (it) => it.killWordRight(),
  "ctrl-y": (it) => it.yank(),
  "ctrl-_": (it) => it.undo(),
  "newline": (it) => it.insert("\n"),
  "alt-enter": (it) => it.insert("\n"),
  "ctrl-c": (_, moves) => moves.cancel(),
  "ctrl-l": (_, moves) => moves.clear(),
  "ctrl-r": (_, moves) => moves.search(),
};

/** The indentation of the next line: that of the last, more behind an open bracket. */
function indent(before: string): string {
  const last = before.slice(before.lastIndexOf("\n") + 1);
  const spaces = last.match(/^\s*/)![0];
  return /[{([]\s*$/.test(last) ? `${spaces}  ` : spaces;
}

function commonStart(a: string, b: string): string {
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  return a.slice(0, i);
}
