/**
 * Enough ACPI machine language for a small DSDT: names, packages, devices, resources.
 * Each function returns the bytes of one term; terms are put together by concatenation.
 *
 * Source: ACPI 6.4, 20.2 (AML grammar), 6.4 (resource descriptors), 6.1.5 (_HID and EISA IDs).
 * @module
 */

type Aml = readonly number[];

const OP = {
  name: 0x08,
  byte: 0x0a,
  word: 0x0b,
  dword: 0x0c,
  string: 0x0d,
  scope: 0x10,
  buffer: 0x11,
  package: 0x12,
  ext: 0x5b,
  device: 0x82,
  root: 0x5c,
};

/** PkgLength: counts itself; 6 bits in one byte, or 4 bits and up to three more bytes. */
function withLength(body: Aml): number[] {
  const length = body.length + 1;
  if (length < 0x40) return [length, ...body];
  for (let extra = 1; extra <= 3; extra++) {
    const total = body.length + 1 + extra;
    if (total >= 1 << (4 + 8 * extra)) continue;
    const more = Array.from({ length: extra }, (_, i) => total >> (4 + 8 * i) & 0xff);
    return [extra << 6 | total & 0xf, ...more, ...body];
  }
  throw new RangeError(`AML package is ${body.length} bytes long; expected less than 2^28`);
}

const ascii = (text: string) => Array.from(text, (c) => c.charCodeAt(0));

/** A name of up to four characters, padded with underscores; `\` in front means the root. */
export function nameString(path: string): number[] {
  const root = path.startsWith("\\");
  const segment = root ? path.slice(1) : path;
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) {
    throw new RangeError(`AML name is "${path}"; expected one segment of A-Z, 0-9 and _`);
  }
  return [...(root ? [OP.root] : []), ...ascii(segment.padEnd(4, "_"))];
}

/** An integer in its shortest form. */
export function integer(value: number): number[] {
  if (value === 0 || value === 1) return [value];
  if (value <= 0xff) return [OP.byte, value];
  if (value <= 0xffff) return [OP.word, value & 0xff, value >> 8];
  return [OP.dword, ...Array.from({ length: 4 }, (_, i) => value >>> (8 * i) & 0xff)];
}

export const string = (text: string): number[] => [OP.string, ...ascii(text), 0];
export const name = (
  path: string,
  value: Aml,
): number[] => [OP.name, ...nameString(path), ...value];
export const scope = (path: string, ...terms: Aml[]): number[] => [
  OP.scope,
  ...withLength([...nameString(path), ...terms.flat()]),
];
export const device = (path: string, ...terms: Aml[]): number[] => [
  OP.ext,
  OP.device,
  ...withLength([...nameString(path), ...terms.flat()]),
];
export const packageOf = (...elements: Aml[]): number[] => [
  OP.package,
  ...withLength([elements.length, ...elements.flat()]),
];
const buffer = (bytes: Aml): number[] => [
  OP.buffer,
  ...withLength([...integer(bytes.length), ...bytes]),
];

/** A compressed EISA ID, as _HID holds it: three letters, four hexadecimal digits. */
export function eisaId(id: string): number[] {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) {
    throw new RangeError(`EISA ID is "${id}"; expected three letters and four hex digits`);
  }
  const [a, b, c] = ascii(id).map((code) => code - 0x40);
  const letters = a << 10 | b << 5 | c;
  const digits = parseInt(id.slice(3), 16);
  return [OP.dword, letters >> 8, letters & 0xff, digits >> 8, digits & 0xff];
}

/** Ports `first` to `first + length - 1`, 16-bit decoded (ACPI 6.4.2.5). */
export const ioPorts = (first: number, length: number): number[] => [
  0x47,
  1,
  first & 0xff,
  first >> 8,
  first & 0xff,
  first >> 8,
  1,
  length,
];

/** An ISA interrupt: edge-triggered, active high, not shared (ACPI 6.4.2.1, two-byte form). */
export const irq = (line: number): number[] => [0x22, 1 << line & 0xff, 1 << line >> 8];

/** A resource template: descriptors and the end tag, whose checksum 0 means "not checked". */
export const resources = (...descriptors: Aml[]): number[] =>
  buffer([...descriptors.flat(), 0x79, 0]);
