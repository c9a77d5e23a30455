// deno-lint-ignore-file no-control-regex
/**
 * Keys from the bytes a terminal sends.
 *
 * @module
 */

/** One key, or one pasted text. */
export interface Key {
  /** "text" for what is to be inserted, else the key: "enter", "left", "ctrl-a", "alt-b", … */
  name: string;
  /** What to insert; set with "text" and "paste". */
  text?: string;
}

const CONTROL: Record<number, string> = {
  0x08: "ctrl-h",
  0x09: "tab",
  0x0a: "newline",
  0x0d: "enter",
  0x1b: "escape",
  0x1d: "ctrl-]",
  0x1f: "ctrl-_",
  0x7f: "backspace",
};

const FINAL: Record<string, string> = {
  A: "up",
  B: "down",
  C: "right",
  D: "left",
  F: "end",
  H: "home",
  Z: "shift-tab",
};

const TILDE: Record<string, string> = {
  "1": "home",
  "3": "delete",
  "4": "end",
  "5": "page-up",
  "6": "page-down",
  "7": "home",
  "8": "end",
};

const PASTE_START = "\x1b[200~";
const PASTE_END = "\x1b[201~";

/** Turns chunks of input into keys; a sequence cut by the end of a chunk waits for the next. */
export class KeyDecoder {
  readonly #utf8 = new TextDecoder();
  #pending = "";

  /** The keys in `bytes`. */
  feed(bytes: Uint8Array): Key[] {
    this.#pending += this.#utf8.decode(bytes, { stream: true });
    const keys: Key[] = [];
    while (this.#pending) {
      const key = this.#next();
      if (!key) break;
      if (key.name !== "ignored") keys.push(key);
    }
    return merge(keys);
  }

  #next(): Key | null {
    const text = this.#pending;
    if (text.startsWith(PASTE_START)) {
      const end = text.indexOf(PASTE_END);
      if (end < 0) return null;
      this.#pending = text.slice(end + PASTE_END.length);
      const pasted = text.slice(PASTE_START.length, end).replace(/\r\n?/g, "\n");
      return { name: "paste", text: pasted };
    }
    const take = (length: number, key: Key) => {
      this.#pending = text.slice(length);
      return key;
    };
    if (text[0] !== "\x1b") {
      const char = String.fromCodePoint(text.codePointAt(0)!);
      const code = char.codePointAt(0)!;
      if (code >= 0x20 && code !== 0x7f) return take(char.length, { name: "text", text: char });
      const name = CONTROL[code] ?? `ctrl-${String.fromCharCode(code + 0x60)}`;
      return take(1, { name });
    }
    const csi = text.match(/^\x1b(?:\[([0-9;?]*)|O)([A-Za-z~])/);
    if (csi) return take(csi[0].length, { name: csiName(csi[1] ?? "", csi[2]) });
    if (/^\x1b\[[0-9;?]*$/.test(text) && text.length > 2) return null;
    if (text.length === 1) return take(1, { name: "escape" });
    const char = String.fromCodePoint(text.codePointAt(1)!);
    const plain: Record<string, string> = { "\r": "alt-enter", "\x7f": "alt-backspace" };
    return take(1 + char.length, { name: plain[char] ?? `alt-${char}` });
  }
}

function csiName(parameters: string, final: string): string {
  const [first, modifier] = parameters.split(";");
  const base = final === "~" ? TILDE[first] : FINAL[final];
  if (!base) return "ignored";
  const bits = Number(modifier ?? 1) - 1;
  return `${bits & 4 ? "ctrl-" : ""}${bits & 2 ? "alt-" : ""}${base}`;
}

/** Characters that came together are inserted together. */
function merge(keys: Key[]): Key[] {
  const merged: Key[] = [];
  for (const key of keys) {
    const last = merged.at(-1);
    if (key.name === "text" && last?.name === "text") last.text! += key.text;
    else merged.push({ ...key });
  }
  return merged;
}
