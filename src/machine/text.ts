/**
 * Numbers in messages.
 *
 * @module
 */

/** A number with its thousands apart: `1,234,567`. */
export function grouped(value: number | bigint): string {
  return String(value).replace(/(?<!\.\d*)\B(?=(\d{3})+(?!\d))/g, ",");
}

/** So many of something, in words: `1 byte`, `1,234 entries`. */
export function counted(value: number | bigint, one: string, more = `${one}s`): string {
  return `${grouped(value)} ${Number(value) === 1 ? one : more}`;
}
