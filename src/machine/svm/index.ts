/** AMD's virtualization extensions (APM 2 chapter 15), as parts of module S. */
import type { Module } from "../wasm/module.ts";
import { buildBoundary } from "./boundary.ts";
import { buildChecks } from "./checks.ts";
import { buildContext } from "./context.ts";
import { buildEntry } from "./entry.ts";
import { buildExit } from "./exit.ts";
import { buildOperations } from "./operations.ts";
import { buildStub } from "./stub.ts";

export { buildSvmHooks } from "./intercept.ts";
export { buildNestedPaging } from "./nested.ts";
export { svmGroup } from "./instructions.ts";

/**
 * The operations of SVM. Built after `buildSvmHooks`, the walks, `refresh` and event delivery, which
 * they call.
 */
export function buildSvmFunctions(m: Module): void {
  buildChecks(m);
  buildOperations(m);
  buildContext(m);
  buildBoundary(m);
  buildExit(m);
  buildEntry(m);
  buildStub(m);
}
