/** The text being edited, with its cursor. Movements keep to whole code points. */
export class Buffer {
  text = "";
  cursor = 0;
  /** What was cut last, for {@linkcode Buffer.yank}. */
  #cut = "";
  #undo: { text: string; cursor: number }[] = [];

  /** Replaces everything; the cursor goes to the end. */
  set(text: string, cursor: number = text.length): void {
    this.text = text;
    this.cursor = cursor;
    this.#undo = [];
  }

  /** Puts `text` in at the cursor. */
  insert(text: string): void {
    this.#replace(this.cursor, this.cursor, text);
  }

  /** Replaces from `from` to the cursor. */
  replaceBack(from: number, text: string): void {
    this.#replace(from, this.cursor, text);
  }

  #replace(from: number, to: number, text: string): void {
    this.#undo.push({ text: this.text, cursor: this.cursor });
    if (this.#undo.length > 200) this.#undo.shift();
    this.text = this.text.slice(0, from) + text + this.text.slice(to);
    this.cursor = from + text.length;
  }

  /** Takes the last change back. */
  undo(): void {
    const last = this.#undo.pop();
    if (last) Object.assign(this, last);
  }

  #before(): number {
    const low = this.text.charCodeAt(this.cursor - 1);
    const pair = low >= 0xdc00 && low <= 0xdfff && this.cursor > 1;
    return Math.max(0, this.cursor - (pair ? 2 : 1));
  }

  #after(): number {
    const size = (this.text.codePointAt(this.cursor) ?? 0) > 0xffff ? 2 : 1;
    return Math.min(this.text.length, this.cursor + size);
  }

  #wordBefore(): number {
    const match = this.text.slice(0, this.cursor).match(/[\p{L}\p{N}_$]*[^\p{L}\p{N}_$]*$/u);
    return this.cursor - (match?.[0].length || 0);
  }

  #wordAfter(): number {
    const match = this.text.slice(this.cursor).match(/^[^\p{L}\p{N}_$]*[\p{L}\p{N}_$]*/u);
    return this.cursor + (match?.[0].length || 0);
  }

  get #lineStart(): number {
    return this.text.lastIndexOf("\n", this.cursor - 1) + 1;
  }

  get #lineEnd(): number {
    const end = this.text.indexOf("\n", this.cursor);
    return end < 0 ? this.text.length : end;
  }

  left(): void {
    this.cursor = this.#before();
  }

  right(): void {
    this.cursor = this.#after();
  }

  wordLeft(): void {
    this.cursor = this.#wordBefore();
  }

  wordRight(): void {
    this.cursor = this.#wordAfter();
  }

  home(): void {
    this.cursor = this.#lineStart;
  }

  end(): void {
    this.cursor = this.#lineEnd;
  }

  /** To the line above; false when there is none. */
  up(): boolean {
    const start = this.#lineStart;
    if (start === 0) return false;
    const above = this.text.lastIndexOf("\n", start - 2) + 1;
    this.cursor = Math.min(above + this.cursor - start, start - 1);
    return true;
  }

  /** To the line below; false when there is none. */
  down(): boolean {
    const end = this.#lineEnd;
    if (end === this.text.length) return false;
    const column = this.cursor - this.#lineStart;
    const next = this.text.indexOf("\n", end + 1);
    this.cursor = Math.min(end + 1 + column, next < 0 ? this.text.length : next);
    return true;
  }

  backspace(): void {
    if (this.cursor > 0) this.#replace(this.#before(), this.cursor, "");
  }

  delete(): void {
    const at = this.cursor;
    if (at < this.text.length) this.#replace(at, this.#after(), "");
  }

  #kill(from: number, to: number): void {
    if (from === to) return;
    this.#cut = this.text.slice(from, to);
    this.#replace(from, to, "");
  }

  /** Cuts to the end of the line; the line break itself when the cursor stands there. */
  killToEnd(): void {
    const end = this.#lineEnd;
    this.#kill(this.cursor, end === this.cursor ? Math.min(end + 1, this.text.length) : end);
  }

  killToStart(): void {
    this.#kill(this.#lineStart, this.cursor);
  }

  killWordLeft(): void {
    this.#kill(this.#wordBefore(), this.cursor);
  }

  killWordRight(): void {
    this.#kill(this.cursor, this.#wordAfter());
  }

  /** Puts in what was cut last. */
  yank(): void {
    this.insert(this.#cut);
  }
}
