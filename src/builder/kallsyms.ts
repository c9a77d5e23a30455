/**
 * The symbol table that a Linux kernel carries for its own messages (CONFIG_KALLSYMS), read out of
 * a stripped vmlinux. Distributions ship no System.map beside the kernel; this stands in for it.
 *
 * The tables have no header, so they are found by their contents: the token table holds the
 * one-character tokens "0" to "9" in a row, its index follows and must agree with it, the markers
 * before it must agree with the names. Order in memory since Linux 4.6, each aligned to a word:
 * offsets, relative base, count, names, markers, tokens, token index. Debian's 6.1.176 has a
 * sequence of 3 bytes a symbol behind the markers; later kernels have offsets and relative base
 * behind the token index.
 *
 * Source: what scripts/kallsyms.c of the kernel's build writes, seen in Debian's 6.1 images.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { ElfFile } from "./elf.ts";
import { type NamedAddress, SymbolTable } from "./symbols.ts";

/** A kernel symbol with the letter `nm` gives its type. */
export interface KernelSymbol extends NamedAddress {
  readonly type: string;
}

interface Tables {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  /** Alignment of each table: 4 or 8. */
  readonly word: 4 | 8;
}

interface Names {
  readonly countAt: number;
  readonly texts: readonly string[];
}

/** Reads the symbols; undefined when the kernel has none, or keeps them in another form. */
export function readKallsyms(elf: ElfFile): KernelSymbol[] | undefined {
  const { bytes } = elf;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const tables: Tables = { view, bytes, word: elf.bits === 64 ? 8 : 4 };
  const tokens = findTokens(tables);
  if (!tokens) return undefined;
  let names: Names | undefined;
  for (const markers of markerCandidates(tables, tokens.start)) {
    names = findNames(tables, markers, tokens.texts);
    if (names) break;
  }
  if (!names) return undefined;
  const addresses = oldAddresses(tables, names) ?? newAddresses(tables, names, tokens.end);
  if (!addresses) return undefined;
  return names.texts.map((text, i) => ({
    type: text[0],
    name: text.slice(1),
    address: addresses[i],
  }));
}

/** The symbols of a kernel as a table for lookups; undefined when there are none. */
export function kallsymsTable(elf: ElfFile): SymbolTable | undefined {
  const symbols = readKallsyms(elf);
  return symbols && new SymbolTable(elf.file, symbols);
}

/** The symbols in the form of a System.map. */
export function writeSystemMap(symbols: readonly KernelSymbol[], bits: 32 | 64): string {
  const digits = bits / 4;
  return symbols.map((s) => `${s.address.toString(16).padStart(digits, "0")} ${s.type} ${s.name}\n`)
    .join("");
}

function align(at: number, word: number): number {
  return Math.ceil(at / word) * word;
}

/** 256 tokens, NUL-terminated, and behind them 256 u16 offsets that must fit. */
function findTokens({ bytes, view, word }: Tables) {
  const haystack = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const digits = Buffer.from(Array.from({ length: 10 }, (_, i) => [0x30 + i, 0]).flat());
  for (let hit = haystack.indexOf(digits); hit >= 0; hit = haystack.indexOf(digits, hit + 1)) {
    let first = hit; // of token "0", number 0x30: walk back over 0x2f strings to token 1
    for (let n = 1; n < 0x30 && first > 1; n++) first = haystack.lastIndexOf(0, first - 2) + 1;
    let end = hit;
    for (let n = 0x30; n < 256 && end > 0; n++) end = haystack.indexOf(0, end) + 1;
    const index = align(end, word);
    if (end === 0 || index + 512 > bytes.length) continue;
    // What lies before token 0 need not be a NUL: the index says how long the token is.
    const start = first - view.getUint16(index + 2, true);
    const texts = start < 0 ? [] : haystack.toString("latin1", start, end).split("\0").slice(0, -1);
    let offset = 0;
    const agrees = texts.length === 256 && texts.every((text, n) => {
      const right = view.getUint16(index + 2 * n, true) === offset;
      offset += text.length + 1;
      return right;
    });
    if (agrees) return { start, end: index + 512, texts };
  }
}

/** Markers: where they begin, their values, and what the count of symbols can be. */
interface Markers {
  readonly start: number;
  readonly values: readonly number[];
  readonly least: number;
  readonly most: number;
}

/** Fewer and more symbols than any kernel has. */
const COUNT_MIN = 2000, COUNT_MAX = 1 << 20;

/**
 * The places where the markers can be: right before the tokens, or before a sequence of 3 bytes a
 * symbol. The first marker is 0, and they rise.
 */
function* markerCandidates(tables: Tables, tokensAt: number): Generator<Markers> {
  const { word } = tables;
  for (let n = 2; n < COUNT_MAX / 256; n++) {
    const found = markersAt(tables, tokensAt - align(n * 4, word), n);
    if (found) yield { ...found, least: n * 256 - 255, most: n * 256 };
  }
  for (let count = COUNT_MIN; count < COUNT_MAX; count++) {
    const n = Math.ceil(count / 256);
    const start = tokensAt - align(count * 3, word) - align(n * 4, word);
    const found = markersAt(tables, start, n);
    if (found) yield { ...found, least: count, most: count };
  }
}

function markersAt({ view }: Tables, start: number, n: number) {
  if (start < 0 || view.getUint32(start, true) !== 0) return undefined;
  const values = [0];
  for (let i = 1; i < n; i++) {
    const value = view.getUint32(start + 4 * i, true);
    const length = value - values[i - 1]; // of 256 names, each at least 2 bytes
    if (length < 512 || length > 256 * 512) return undefined;
    values.push(value);
  }
  return { start, values };
}

/** Looks before the markers for a count whose names reach every marker. */
function findNames(tables: Tables, markers: Markers, tokens: readonly string[]): Names | undefined {
  const { view, word } = tables;
  const nearest = align(markers.start - markers.values.at(-1)! - word, word);
  for (let at = nearest; at >= word && at > nearest - 256 * 64; at -= word) {
    const count = view.getUint32(at, true);
    if (count > markers.most || count < markers.least) continue;
    const texts = readNames(tables, at + word, count, markers, tokens);
    if (texts) return { countAt: at, texts };
  }
}

function readNames(
  { bytes }: Tables,
  start: number,
  count: number,
  markers: Markers,
  tokens: readonly string[],
): string[] | undefined {
  const texts: string[] = [];
  let at = start;
  for (let i = 0; i < count; i++) {
    if (i % 256 === 0 && at - start !== markers.values[i >> 8]) return undefined;
    let length = bytes[at++];
    if (length & 0x80) length = length & 0x7f | bytes[at++] << 7;
    if (at + length > markers.start) return undefined;
    let text = "";
    for (const end = at + length; at < end; at++) text += tokens[bytes[at]];
    if (text.length < 2) return undefined;
    texts.push(text);
  }
  return texts;
}

/** Offsets and base before the count, as up to Linux 6.3. */
function oldAddresses(tables: Tables, { countAt, texts }: Names): bigint[] | undefined {
  const baseAt = countAt - tables.word;
  return addresses(tables, baseAt - align(texts.length * 4, tables.word), baseAt, texts);
}

/** Offsets and base behind the token index. */
function newAddresses(tables: Tables, { texts }: Names, end: number): bigint[] | undefined {
  const offsetsAt = align(end, tables.word);
  return addresses(tables, offsetsAt, offsetsAt + align(texts.length * 4, tables.word), texts);
}

/**
 * An offset is relative to the base; where the kernel keeps per-CPU symbols absolute (x86-64 SMP),
 * a negative one is base - 1 - offset, and any other an address as it is.
 */
function addresses(
  { view, bytes, word }: Tables,
  offsetsAt: number,
  baseAt: number,
  texts: readonly string[],
): bigint[] | undefined {
  if (offsetsAt < 0 || baseAt + word > bytes.length) return undefined;
  const base = word === 8 ? view.getBigUint64(baseAt, true) : BigInt(view.getUint32(baseAt, true));
  const offsets = texts.map((_, i) => view.getInt32(offsetsAt + 4 * i, true));
  const absolute = word === 8 && offsets.some((o) => o < 0);
  const result = offsets.map((o) =>
    absolute ? o < 0 ? base - 1n - BigInt(o) : BigInt(o) : base + BigInt(o >>> 0)
  );
  const rising = result.every((a, i) => i === 0 || a >= result[i - 1]);
  const text = texts.findIndex((t) => /^T_s?text$/i.test(t));
  return rising && text >= 0 && result[text] >= base ? result : undefined;
}
