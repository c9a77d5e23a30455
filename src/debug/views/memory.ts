/**
 * Memory as the shell and scripts see it: machine memory, a domain's guest-physical memory, a
 * vCPU's linear addresses. Reading has no side effects; writing goes through the one door.
 *
 * @module
 */
import {
  bytes as bytesOf,
  count,
  options as optionsOf,
  type SymbolLookup,
  toAddress,
  toCount,
} from "../check.ts";
import { hex, INSPECT, sizeText } from "../values.ts";
import type { Address } from "../../hvm/fields.ts";

/** What a {@linkcode Memory} stands on. Addresses are checked and whole numbers. */
export interface ByteSource {
  /** "machine", "guest-physical" or "linear": for messages. */
  readonly kind: string;
  /** Bytes there are; undefined for an address space. */
  readonly size?: number;
  /** Bytes from `address` on that lie in one piece, at most `length`. @throws if there are none */
  read(address: bigint, length: number): Uint8Array;
  write(address: bigint, bytes: Uint8Array): void;
  /** Why it cannot be reached any longer; undefined while it can. */
  readonly gone?: string;
  /** Where to go on after an address that cannot be read; undefined: nowhere. */
  next?(address: bigint, limit: bigint): bigint | undefined;
}

/** What a search is told. */
export interface SearchOptions {
  /** First address; 0 if not given. */
  readonly from?: Address;
  /** End, not included; the end of memory if not given. */
  readonly to?: Address;
  /** Most results; 100 if not given. */
  readonly limit?: number;
}

/**
 * Bytes at addresses. An address is a bigint, a safe integer or a symbol's name; lengths are bytes.
 *
 * @example
 * ```ts
 * import { Hypervisor } from "xvm";
 *
 * await using hv = await Hypervisor.demo();
 * const [dom] = hv.domains;
 * dom.memory.write(0x5000, new Uint8Array([1, 2, 3, 4]));
 * if (dom.memory.u32(0x5000) !== 0x04030201) throw new Error("unexpected");
 * ```
 */
export class Memory {
  readonly #source: ByteSource;
  readonly #symbols: () => SymbolLookup | undefined;

  /** @ignore Found as `memory` of a domain, a vCPU and the hypervisor. */
  constructor(source: ByteSource, symbols: () => SymbolLookup | undefined = () => undefined) {
    this.#source = source;
    this.#symbols = symbols;
  }

  /** Bytes of memory; undefined for linear addresses. */
  get size(): number | undefined {
    return this.#source.size;
  }

  #mustBeThere(): void {
    const { kind, gone } = this.#source;
    if (gone !== undefined) throw new Error(`${kind} memory: ${gone}`);
  }
  #address(address: Address): bigint {
    this.#mustBeThere();
    return toAddress(address, `${this.#source.kind} address`, this.#symbols());
  }

  /**
   * A copy of `length` bytes.
   *
   * @param address an address, or a symbol's name
   * @throws {RangeError} naming the first address that is not memory, or not mapped
   */
  read(address: Address, length: number): Uint8Array {
    let at = this.#address(address);
    const bytes = new Uint8Array(toCount(length, "length", 0));
    for (let done = 0; done < length;) {
      const part = this.#source.read(at, length - done);
      bytes.set(part, done);
      done += part.length;
      at += BigInt(part.length);
    }
    return bytes;
  }

  /**
   * Writes bytes.
   *
   * @throws {RangeError} as {@linkcode Memory.read}; nothing is written then
   * @throws {TypeError} for anything but bytes
   */
  write(address: Address, bytes: Uint8Array | readonly number[]): void {
    const at = this.#address(address);
    const given = bytesOf(bytes, "bytes");
    this.read(at, given.length);
    this.#source.write(at, given);
  }

  /** The byte at an address. */
  u8(address: Address): number {
    return this.read(address, 1)[0];
  }
  /** 16 bits, little-endian, unsigned. */
  u16(address: Address): number {
    return this.#view(address, 2).getUint16(0, true);
  }
  /** 32 bits, little-endian, unsigned. */
  u32(address: Address): number {
    return this.#view(address, 4).getUint32(0, true);
  }
  /** 64 bits, little-endian, unsigned. */
  u64(address: Address): bigint {
    return this.#view(address, 8).getBigUint64(0, true);
  }
  #view(address: Address, length: number): DataView {
    return new DataView(this.read(address, length).buffer);
  }

  /**
   * Text up to a zero byte, or to where memory ends; read as UTF-8.
   *
   * @param limit the most bytes
   * @throws {RangeError} if there is no memory at the address
   */
  text(address: Address, limit = 4096): string {
    const at = this.#address(address);
    count(limit, "limit");
    const bytes: number[] = [];
    while (bytes.length < limit) {
      let part: Uint8Array;
      try {
        part = this.#source.read(at + BigInt(bytes.length), Math.min(64, limit - bytes.length));
      } catch (error) {
        if (bytes.length === 0) throw error;
        break;
      }
      const end = part.indexOf(0);
      bytes.push(...(end < 0 ? part : part.subarray(0, end)));
      if (end >= 0) break;
    }
    return new TextDecoder().decode(Uint8Array.from(bytes));
  }

  /**
   * Addresses at which a text or bytes are found, the lowest first; what cannot be read is skipped.
   *
   * @param pattern a text (as UTF-8) or bytes
   * @throws {RangeError} for a pattern of no bytes, or a range that is empty
   */
  search(pattern: string | Uint8Array | readonly number[], options: SearchOptions = {}): bigint[] {
    this.#mustBeThere();
    const wanted = typeof pattern === "string"
      ? new TextEncoder().encode(pattern)
      : bytesOf(pattern, "search pattern");
    if (wanted.length === 0) throw new RangeError("search: the pattern is empty");
    const {
      from = 0n,
      to = BigInt(this.#source.size ?? 0x1_0000_0000),
      limit = 100,
    } = SEARCH_OPTIONS(options, "search", this.#symbols());
    if (from >= to) {
      throw new RangeError(`search: nothing lies from ${hex(from)} to before ${hex(to)}`);
    }
    const found: bigint[] = [];
    let at: bigint | undefined = from;
    let before = new Uint8Array(0);
    while (at !== undefined && at < to && found.length < limit) {
      let part: Uint8Array;
      try {
        part = this.#source.read(at, Number(to - at > CHUNK ? CHUNK : to - at));
      } catch {
        before = new Uint8Array(0);
        at = this.#source.next?.(at, to);
        continue;
      }
      const all = new Uint8Array(before.length + part.length);
      all.set(before);
      all.set(part, before.length);
      for (let i = indexOf(all, wanted, 0); i >= 0; i = indexOf(all, wanted, i + 1)) {
        found.push(at - BigInt(before.length) + BigInt(i));
        if (found.length === limit) break;
      }
      before = all.slice(Math.max(0, all.length - wanted.length + 1));
      at += BigInt(part.length);
    }
    return found;
  }

  /**
   * Bytes as a hexadecimal dump, 16 to a line.
   *
   * @param length bytes; 256 if not given
   * @throws {RangeError} as {@linkcode Memory.read}
   */
  dump(address: Address, length = 256): Dump {
    const at = this.#address(address);
    return new Dump(at, this.read(at, length));
  }

  /** @ignore */
  [INSPECT](): string {
    const { kind, size, gone } = this.#source;
    if (gone !== undefined) return `${kind} memory: ${gone}`;
    return `${kind} memory${
      size === undefined ? "" : `, ${sizeText(size)}`
    }: read(address, length),` +
      ` write(address, bytes), u8 u16 u32 u64 text(address), search(pattern), dump(address)`;
  }
}

/** @see SearchOptions */
const SEARCH_OPTIONS = optionsOf({
  from: toAddress,
  to: toAddress,
  limit: count,
});
const CHUNK = 65536n;

function indexOf(bytes: Uint8Array, wanted: Uint8Array, from: number): number {
  outer: for (let i = bytes.indexOf(wanted[0], from); i >= 0; i = bytes.indexOf(wanted[0], i + 1)) {
    if (i + wanted.length > bytes.length) return -1;
    for (let j = 1; j < wanted.length; j++) if (bytes[i + j] !== wanted[j]) continue outer;
    return i;
  }
  return -1;
}

/** Bytes with their address; prints as a hexadecimal dump. */
export class Dump {
  /** Address of the first byte. */
  readonly address: bigint;
  /** The bytes, a copy. */
  readonly bytes: Uint8Array;

  /** @ignore Made by {@linkcode Memory.dump}. */
  constructor(
    address: bigint,
    bytes: Uint8Array,
  ) {
    this.address = address;
    this.bytes = bytes;
  }

  /** Lines of address, 16 bytes in hexadecimal, and the same as text. */
  toString(): string {
    const { address, bytes } = this;
    const digits = address + BigInt(bytes.length) > 0xffff_ffffn ? 16 : 8;
    const lines: string[] = [];
    for (let at = 0; at < bytes.length; at += 16) {
      const row = bytes.subarray(at, at + 16);
      const codes = Array.from(row, (b, i) => `${i === 8 ? " " : ""}${hex(b, 2).slice(2)}`);
      const text = Array.from(row, (b) => b >= 32 && b < 127 ? String.fromCharCode(b) : ".");
      lines.push(
        `${hex(address + BigInt(at), digits)}  ${codes.join(" ").padEnd(48)}  ${text.join("")}`,
      );
    }
    return lines.join("\n");
  }
  /** @ignore */
  [INSPECT](): string {
    return this.toString();
  }
}
