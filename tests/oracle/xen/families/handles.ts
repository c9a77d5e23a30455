/**
 * Arguments that many calls have: bad handles, and domains.
 *
 * @module
 */
import type { Argument } from "../program.ts";
import { DOMID } from "../../../../src/abi/xen/xen.ts";
import { OWN_DOMID, type Writer } from "../writer.ts";

/**
 * None with bits 63:48 that are not as bit 47: Xen walks a guest's tables by the lower 48 bits.
 */
const BAD: Readonly<Record<32 | 64, readonly (readonly [string, number | bigint])[]>> = {
  32: [["no memory", 0xf000_0000], ["wraps", 0xffff_fffc]],
  64: [
    ["no memory", 0xf000_0000],
    ["not mapped", 0x7f00_0000_0000n],
    ["Xen's own", 0xffff_8300_0000_0000n],
  ],
};

/** An address that is no good guest handle: its kind, and the argument. */
export function badHandle(w: Writer): { kind: string; handle: Argument } {
  const [what, handle] = w.random.pick(BAD[w.width]);
  return { kind: `bad handle: ${what}`, handle };
}

/** A domid for a field: its kind, its value and where it comes from. */
export function domid(w: Writer, path = "domid") {
  const kind = w.random.pick(
    ["self", "self", "self", "self", "own", "0", "none", "reserved"] as const,
  );
  const value = { self: DOMID.SELF, own: 0, "0": 0, none: 0x7000, reserved: DOMID.XEN }[kind];
  return { kind: `domain ${kind}`, value, from: kind === "own" ? { [path]: OWN_DOMID } : {} };
}
