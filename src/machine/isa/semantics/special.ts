/** What happens to bytes that are no instruction here. */
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { check } from "../../checks.ts";
import type { Semantics } from "./meaning.ts";

const CHECK = {
  undefined: check(
    "decode.undefined",
    "these bytes are no instruction in this mode",
    "SDM 2 appendix A",
  ),
  tooLong: check("decode.too-long", "the instruction is longer than 15 bytes", "SDM 3 6.15, #GP"),
  unsupported: check(
    "decode.unsupported",
    "xvm decodes this instruction but does not execute it yet",
    "xvm",
  ),
  foreign: check(
    "decode.foreign",
    "an instruction of the other vendor's virtualization extensions",
    "SDM 2; APM 3",
  ),
};

export const specialSemantics: Record<string, Semantics> = {
  "decode.undefined": (m) => m.fault(VECTOR.UD, undefined, CHECK.undefined),
  "decode.tooLong": (m) => m.fault(VECTOR.GP, 0, CHECK.tooLong),
  "decode.unsupported": (m) => m.fault(VECTOR.UD, undefined, CHECK.unsupported),
  "decode.foreign": (m) => m.fault(VECTOR.UD, undefined, CHECK.foreign),
};
