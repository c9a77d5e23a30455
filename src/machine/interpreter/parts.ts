/** Parts of module S that come from other folders, in the order they need each other. */
import { VECTOR } from "../../abi/x86/vectors.ts";
import type { Module } from "../wasm/module.ts";
import { check } from "../checks.ts";
import { buildCoprocessor } from "../system/exceptions/coprocessor.ts";
import { buildSystemFunctions } from "../system/build.ts";
import { buildFloatSwitch, buildRunGuest } from "./guest.ts";
import type { Virtualization } from "../virtualization.ts";
import { cell64, noteFault } from "../linkage.ts";
import { V } from "../state.ts";

const FETCH_LIMIT = check(
  "fetch.limit",
  "instruction at {a} runs past the code segment's limit {b}",
  "SDM 3 5.3",
);

export function buildSystemParts(m: Module, extensions: Virtualization): void {
  extensions.hooks(m);
  buildSystemFunctions(m);
  buildCoprocessor(m);
  extensions.functions(m);
  buildRunGuest(m);
  buildFloatSwitch(m);
  m.func("fetchLimit", ["i64"], [], (f, ip) => {
    noteFault(f, VECTOR.GP, 0, FETCH_LIMIT, ip, cell64(V.codeLimit));
  });
}
