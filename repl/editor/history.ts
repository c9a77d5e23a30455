import { ensureDirSync } from "@std/fs";
import { dirname } from "node:path";
import { appendWhole, writeWhole } from "../files.ts";

const LIMIT = 5_000;

/** What was entered before, oldest first; kept in a file with one JSON string to a line. */
export class History {
  readonly entries: string[] = [];
  readonly #file?: string;
  #failed: (message: string) => void;
  /** The last line of the file has no end. */
  #cutOff = false;
  /** Where one looks; `entries.length` is the line being written. */
  #at = 0;
  #draft = "";

  /**
   * Reads `file` when it is given and there; a line that cannot be read is passed over.
   *
   * @param failed told, once, why the file cannot be written: that is no reason to stop
   */
  constructor(file?: string, failed: (message: string) => void = () => {}) {
    this.#file = file;
    this.#failed = failed;
    if (!file) return;
    let text = "";
    try {
      text = Deno.readTextFileSync(file);
    } catch {
      return; // the first start, or a folder that cannot be read: history is then empty
    }
    this.#cutOff = text !== "" && !text.endsWith("\n");
    for (const line of text.split("\n")) {
      try {
        const entry = JSON.parse(line);
        if (typeof entry === "string") this.entries.push(entry);
      } catch {
        continue;
      }
    }
    if (this.entries.length > LIMIT) {
      this.entries.splice(0, this.entries.length - LIMIT);
      this.#write(writeWhole, this.entries);
    }
    this.#at = this.entries.length;
  }

  #write(how: (file: string, text: string) => void, entries: readonly string[]): void {
    try {
      ensureDirSync(dirname(this.#file!));
      const text = entries.map((it) => `${JSON.stringify(it)}\n`).join("");
      how(this.#file!, this.#cutOff ? `\n${text}` : text);
      this.#cutOff = false;
    } catch (error) {
      this.#failed(`the history is not kept: ${(error as Error).message}`);
      this.#failed = () => {};
    }
  }

  /** Keeps an entry, unless it is empty or the last one again. */
  add(entry: string): void {
    if (entry.trim() && entry !== this.entries.at(-1)) {
      this.entries.push(entry);
      if (this.#file) this.#write(appendWhole, [entry]);
    }
    this.reset();
  }

  /** Back to the line being written. */
  reset(): void {
    this.#at = this.entries.length;
    this.#draft = "";
  }

  /** The entry before, or null at the oldest; `current` is kept when one leaves it. */
  previous(current: string): string | null {
    if (this.#at === 0) return null;
    if (this.#at === this.entries.length) this.#draft = current;
    return this.entries[--this.#at];
  }

  /** The entry after, the line being written at last, or null there. */
  next(): string | null {
    if (this.#at >= this.entries.length) return null;
    return ++this.#at === this.entries.length ? this.#draft : this.entries[this.#at];
  }

  /** The newest entry before `before` that contains `text`. */
  search(text: string, before: number = this.entries.length): number {
    for (let i = before - 1; i >= 0; i--) if (this.entries[i].includes(text)) return i;
    return -1;
  }
}
