/**
 * Symbols from files: those that the user names, and those that lie beside a kernel.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";
import { isElf, readElf } from "../builder/elf.ts";
import { readElfSymbols, readSystemMap, type SymbolTable } from "../builder/symbols.ts";
import { KERNEL_MAX, readFile } from "./files.ts";

/** Symbols from a path or from bytes: System.map, or ELF. */
export function readSymbols(source: string | Uint8Array): SymbolTable {
  const file = typeof source === "string" ? source : "symbols";
  const bytes = typeof source === "string" ? readFile("symbols", source, KERNEL_MAX) : source;
  if (!isElf(bytes)) return readSystemMap(new TextDecoder().decode(bytes), file);
  const table = readElfSymbols(readElf(bytes, file));
  if (!table) throw new Error(`${file}: this ELF file has no symbol table (it is stripped)`);
  return table;
}

/** Symbols as asked for, or those that lie beside the kernel under their usual name. */
export function findSymbols(
  { kernel, symbols }: {
    readonly kernel?: string | Uint8Array;
    readonly symbols?: string | Uint8Array;
  },
): SymbolTable | undefined {
  if (symbols !== undefined) return readSymbols(symbols);
  if (typeof kernel !== "string") return undefined;
  const match = basename(kernel).match(/^vmlinu[xz]-(.+)$/);
  if (!match) return undefined;
  try {
    return readSymbols(join(dirname(kernel), `System.map-${match[1]}`));
  } catch {
    return undefined;
  }
}
