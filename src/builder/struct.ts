/**
 * Structures of bytes in images and tables, read and written by the names of their fields.
 *
 * @module
 */
import type { BootLayout } from "../abi/boot/fields.ts";

/**
 * A structure of bytes with named little-endian fields.
 *
 * Fields of up to 4 bytes are numbers (`get`), of 8 bytes bigints (`big`); `set` takes either.
 * The constructor refuses a range outside the bytes, so that reads never run off.
 */
export class Struct<L extends BootLayout> {
  readonly #layout: L;
  readonly #view: DataView;

  constructor(layout: L, bytes: Uint8Array, at = 0) {
    const end = Math.max(...Object.values(layout).map(([offset, width]) => offset + width));
    if (at < 0 || at + end > bytes.length) {
      throw new RangeError(`structure is at ${at} to ${at + end}; expected within ${bytes.length}`);
    }
    this.#layout = layout;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at);
  }

  get(name: keyof L): number {
    const [at, width] = this.#layout[name];
    if (width === 1) return this.#view.getUint8(at);
    if (width === 2) return this.#view.getUint16(at, true);
    if (width === 4) return this.#view.getUint32(at, true);
    const value = this.#view.getBigUint64(at, true);
    return Number(value);
  }

  big(name: keyof L): bigint {
    const [at, width] = this.#layout[name];
    return width === 8 ? this.#view.getBigUint64(at, true) : BigInt(this.get(name));
  }

  set(name: keyof L, value: number | bigint): this {
    const [at, width] = this.#layout[name];
    if (width === 8) this.#view.setBigUint64(at, BigInt(value), true);
    else if (width === 4) this.#view.setUint32(at, Number(value), true);
    else if (width === 2) this.#view.setUint16(at, Number(value), true);
    else this.#view.setUint8(at, Number(value));
    return this;
  }

  setAll(values: Partial<Record<keyof L, number | bigint>>): this {
    for (const [name, value] of Object.entries(values)) {
      if (value !== undefined) this.set(name, value as number | bigint);
    }
    return this;
  }
}
