/**
 * Every check of the machine has an identity, so that `why()` can answer for any fault, VM-entry
 * failure or exit. Semantics name a check; the number is what the machine writes down.
 */

/** What a fault, a failed VM entry or an exit was for. */
interface Check {
  readonly id: number;
  readonly name: string;
  /** A sentence; `{a}` and `{b}` stand for the operands the check noted, in hexadecimal. */
  readonly text: string;
  /** Manual, volume and section. */
  readonly source: string;
}

const byName = new Map<string, Check>();
const byId: Check[] = [{ id: 0, name: "none", text: "no check noted", source: "" }];
byName.set("none", byId[0]);

/** Declares a check; the same name again must say the same. */
export function check(name: string, text: string, source: string): number {
  const known = byName.get(name);
  if (known) {
    if (known.text !== text) {
      throw new Error(`check ${name} is declared twice with different texts`);
    }
    return known.id;
  }
  const entry = { id: byId.length, name, text, source };
  byId.push(entry);
  byName.set(name, entry);
  return entry.id;
}

/** The check with that number; number 0 where there is none. */
export function checkById(id: number): Check {
  return byId[id] ?? byId[0];
}

/** The text of a check with its operands filled in. */
export function explain(id: number, a: bigint, b: bigint): string {
  const hex = (v: bigint) => `0x${BigInt.asUintN(64, v).toString(16)}`;
  return checkById(id).text.replaceAll("{a}", hex(a)).replaceAll("{b}", hex(b));
}

/** All checks, in order of declaration. */
export function allChecks(): readonly Check[] {
  return byId.slice(1);
}
