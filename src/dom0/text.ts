/**
 * Bytes of messages as text, a character a byte: what a guest sends comes back as it was.
 *
 * @module
 */

export const textOf = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

/** @throws {TypeError} if a character is none below 100h */
export function bytesOfText(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0xff) {
      throw new TypeError(`${JSON.stringify(text)}: "${text[i]}" is no character of a byte`);
    }
    bytes[i] = code;
  }
  return bytes;
}

/** The strings that end in a nul; what stands behind the last nul is none. */
export const stringsOf = (bytes: Uint8Array): string[] => textOf(bytes).split("\0").slice(0, -1);

/** The only string, with its nul at the end. */
export function onlyString(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0);
  return end >= 0 && end === bytes.length - 1 ? textOf(bytes.subarray(0, end)) : undefined;
}

/** Strings, each with a nul behind it. */
export const joined = (strings: readonly string[]): Uint8Array =>
  bytesOfText(strings.map((each) => `${each}\0`).join(""));

/** A number as C's atoi() reads it: 0 where there is none. */
export const numberAt = (text: string): number =>
  Number(text.match(/^[ \t-\r]*([+-]?\d+)/)?.[1] ?? 0) | 0;
