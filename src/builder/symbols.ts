/**
 * Names of a kernel's addresses: System.map and ELF symbol tables, looked up both ways.
 *
 * @module
 */
import { sizeOf, View } from "../abi/layout.ts";
import { ELF_SYMBOL, SHN_UNDEF, SHT_SYMTAB, STT_FILE, STT_SECTION } from "../abi/boot/elf.ts";
import { type ElfFile, stringAt } from "./elf.ts";
import { BuilderError } from "./errors.ts";

/** A symbol: a name and the (virtual) address it stands for. */
export interface NamedAddress {
  /** As the symbol table has it. */
  readonly name: string;
  /** Linear address. */
  readonly address: bigint;
}

/** A place in terms of the symbol at or below it. */
export interface SymbolPlace extends NamedAddress {
  /** Bytes from the symbol to the place. */
  readonly offset: bigint;
}

/** Names and addresses of a kernel, both ways. */
export class SymbolTable {
  /** Where the names come from, for messages. */
  readonly source: string;
  readonly #addresses: BigUint64Array;
  readonly #names: readonly string[];
  readonly #byName = new Map<string, bigint>();

  /** `entries` in any order; of several names for an address the first given is shown. */
  constructor(source: string, entries: Iterable<NamedAddress>) {
    const sorted = [...entries].sort((a, b) =>
      a.address < b.address ? -1 : a.address > b.address ? 1 : 0
    );
    this.source = source;
    this.#names = sorted.map((s) => s.name);
    this.#addresses = BigUint64Array.from(sorted, (s) => s.address);
    for (const { name, address } of sorted) {
      if (!this.#byName.has(name)) this.#byName.set(name, address);
    }
  }

  /** How many symbols there are. */
  get size(): number {
    return this.#names.length;
  }

  /**
   * The address of a name; the lowest, when it stands for several.
   *
   * @throws {TypeError} for what is no text
   */
  address(name: string): bigint | undefined {
    if (typeof name !== "string") {
      throw new TypeError(`symbols.address: a name was expected, ${typeof name} was given`);
    }
    return this.#byName.get(name);
  }

  /**
   * The symbol at or below an address.
   *
   * @param reach Farther away than this (bytes) is not told as "inside" the symbol.
   * @throws {TypeError} for what is no bigint
   */
  nearest(address: bigint, reach: bigint = 1n << 20n): SymbolPlace | undefined {
    if (typeof address !== "bigint" || typeof reach !== "bigint") {
      throw new TypeError(`symbols.nearest: a bigint was expected, ${typeof address} was given`);
    }
    let low = 0, high = this.#addresses.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#addresses[middle] <= address) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return undefined;
    let i = low - 1;
    while (i > 0 && this.#addresses[i - 1] === this.#addresses[i]) i--;
    const offset = address - this.#addresses[i];
    if (offset > reach) return undefined;
    return { name: this.#names[i], address: this.#addresses[i], offset };
  }

  /** `name` or `name+0x12` for an address; undefined when no symbol is near. */
  format(address: bigint): string | undefined {
    const place = this.nearest(address);
    if (!place) return undefined;
    return place.offset === 0n ? place.name : `${place.name}+0x${place.offset.toString(16)}`;
  }

  /** Names that begin with `prefix`, sorted, at most `limit`: for completion. */
  complete(prefix: string, limit = 100): string[] {
    return [...this.#byName.keys()].filter((n) => n.startsWith(prefix)).sort().slice(0, limit);
  }

  /** All of them, by address. */
  *[Symbol.iterator](): Generator<NamedAddress> {
    for (let i = 0; i < this.#names.length; i++) {
      yield { name: this.#names[i], address: this.#addresses[i] };
    }
  }
}

/**
 * Reads a System.map: lines of address, type letter, name.
 *
 * @throws {BuilderError} On a line of another form, or the placeholder that Debian's kernel
 *   packages carry.
 */
export function readSystemMap(text: string, file: string): SymbolTable {
  const entries: NamedAddress[] = [];
  text.split("\n").forEach((line, i) => {
    if (line.trim() === "") return;
    const match = /^([0-9a-f]{1,16}) ([A-Za-z?]) (\S+)/i.exec(line);
    if (!match || /^f+ B The real System\.map/.test(line)) {
      throw new BuilderError({
        file,
        field: `line ${i + 1}`,
        given: JSON.stringify(line.slice(0, 80)),
        expected: "address, type letter and name (a real System.map)",
      });
    }
    entries.push({ name: match[3], address: BigInt(`0x${match[1]}`) });
  });
  return new SymbolTable(file, entries);
}

/** Reads the symbol table of an ELF file; undefined when it has none (a stripped file). */
export function readElfSymbols(elf: ElfFile): SymbolTable | undefined {
  const table = elf.sections.find((s) => s.type === SHT_SYMTAB && s.size > 0);
  const names = table && elf.sections[table.link];
  if (!table || !names) return undefined;
  const layout = ELF_SYMBOL[elf.bits], each = sizeOf(layout, elf.bits);
  const entries: NamedAddress[] = [];
  const count = Math.floor(table.size / each);
  for (let i = 0; i < count; i++) {
    const s = new View(layout, elf.bits, elf.bytes, table.offset + i * each);
    const type = s.get("info") & 15;
    if (s.get("shndx") === SHN_UNDEF || type === STT_SECTION || type === STT_FILE) continue;
    const name = stringAt(elf.bytes, names.offset + s.get("name"), names.offset + names.size);
    if (name !== "") entries.push({ name, address: s.get("value") });
  }
  return new SymbolTable(elf.file, entries);
}
