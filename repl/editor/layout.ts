// deno-lint-ignore-file no-control-regex
/**
 * Where text falls on the rows of a terminal.
 *
 * @module
 */

/** Rows to draw, and where the cursor stands in them. */
export interface Layout {
  rows: string[];
  cursorRow: number;
  cursorColumn: number;
}

const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;
const ESCAPE = /\x1b\[[0-9;?]*[A-Za-z]/g;

/** Columns of one character. */
export function widthOf(char: string): number {
  if (char < "\u0300") return 1;
  if (/[\p{Mn}\u200b-\u200d\ufe0f]/u.test(char)) return 0;
  return WIDE.test(char) ? 2 : 1;
}

/** Columns of a text, escape sequences not counted. */
export function textWidth(text: string): number {
  let width = 0;
  for (const char of text.replace(ESCAPE, "")) width += widthOf(char);
  return width;
}

/** The rows of `text` with its prompts, wrapped at `columns`. */
export function layout(
  prompt: string,
  continuation: string,
  text: string,
  cursor: number,
  columns: number,
): Layout {
  const rows = [prompt];
  let column = textWidth(prompt), index = 0;
  let cursorRow = 0, cursorColumn = column;
  const wrap = (start: string) => {
    rows.push(start);
    column = textWidth(start);
  };
  for (const char of text) {
    if (index === cursor) [cursorRow, cursorColumn] = [rows.length - 1, column];
    index += char.length;
    if (char === "\n") {
      wrap(continuation);
      continue;
    }
    const shown = char === "\t" ? "  " : char < " " ? "?" : char;
    const width = textWidth(shown);
    if (column + width > columns) wrap("");
    // A cursor before a character that wraps stands at the start of the next row.
    if (index - char.length === cursor) [cursorRow, cursorColumn] = [rows.length - 1, column];
    rows[rows.length - 1] += shown;
    column += width;
  }
  if (cursor >= index) {
    if (column >= columns) wrap("");
    [cursorRow, cursorColumn] = [rows.length - 1, column];
  }
  return { rows, cursorRow, cursorColumn };
}

/** Words in columns, read downwards. */
export function columnsOf(words: string[], columns: number): string {
  const width = Math.max(...words.map(textWidth)) + 2;
  const across = Math.max(1, Math.floor(columns / width));
  const down = Math.ceil(words.length / across);
  const lines: string[] = [];
  for (let row = 0; row < down; row++) {
    let line = "";
    for (let i = row; i < words.length; i += down) {
      line += words[i] + " ".repeat(width - textWidth(words[i]));
    }
    lines.push(line.trimEnd());
  }
  return lines.join("\n");
}
