/**
 * Errors of the builder: which file, which field, what was there and what would have been accepted.
 *
 * @module
 */
import { counted } from "../machine/text.ts";

export { counted };

/** What a {@link BuilderError} is about: which file, which field, what was there, what was due. */
export interface BuilderErrorDetail {
  /** The file (path or name) the builder was given. */
  readonly file: string;
  /** The field, in the words of its format's documentation. */
  readonly field: string;
  /** What the file or the caller gave. */
  readonly given: string;
  /** What would have been accepted. */
  readonly expected: string;
}

/** A guest image, a table or a memory size the builder cannot work with: the user's to mend. */
export class BuilderError extends Error implements BuilderErrorDetail {
  override readonly name = "BuilderError";
  readonly file: string;
  readonly field: string;
  readonly given: string;
  readonly expected: string;

  constructor(detail: BuilderErrorDetail) {
    super(
      `${brief(detail.file)}: ${brief(detail.field)} is ${brief(detail.given, 200)}; ` +
        `expected ${detail.expected}`,
    );
    this.file = detail.file;
    this.field = detail.field;
    this.given = detail.given;
    this.expected = detail.expected;
  }
}

/** A name, a path or what stands in a file, for a message: of what is long, its two ends. */
export function brief(text: string, most = 120): string {
  if (text.length <= most) return text;
  const half = most >> 1;
  return `${text.slice(0, half)}…${text.slice(-half)} (${text.length} characters)`;
}

/** `0x...` of a number or bigint, the way addresses are written in messages. */
export function hex(value: number | bigint): string {
  return value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}

/** A byte count for people: `5.4 MB`, `64 KB`, `12 bytes`. */
export function sizeText(bytes: number): string {
  if (bytes >= 2 ** 30) return `${Number((bytes / 2 ** 30).toFixed(2))} GB`;
  if (bytes >= 1 << 20) return `${Number((bytes / (1 << 20)).toFixed(1))} MB`;
  if (bytes >= 1 << 10) return `${Number((bytes / (1 << 10)).toFixed(1))} KB`;
  return counted(bytes, "byte");
}
