/** SSE to SSE4.2: the group of all instructions of them that mmx.ts and fxsave.ts do not hold. */
import { buildFloatCore } from "../../float/index.ts";
import { buildSseElements } from "../../float/sse.ts";
import type { Module } from "../../wasm/module.ts";
import type { Semantics } from "./meaning.ts";
import { buildSseAccess } from "./sse_access.ts";
import { convertSemantics } from "./sse_convert.ts";
import { buildSseFloat, floatSemantics } from "./sse_float.ts";
import { moveSemantics } from "./sse_moves.ts";
import { buildSsePacked, packedSemantics } from "./sse_packed.ts";
import { buildSseStrings, stringSemantics } from "./sse_string.ts";

const semantics: Record<string, Semantics> = {
  ...moveSemantics,
  ...packedSemantics,
  ...floatSemantics,
  ...convertSemantics,
  ...stringSemantics,
};

/** Meanings by key, and the functions they call. */
export const sseGroup = {
  semantics,
  functions(m: Module): void {
    buildFloatCore(m);
    buildSseElements(m);
    buildSseAccess(m);
    buildSseFloat(m);
    buildSsePacked(m);
    buildSseStrings(m);
  },
};
