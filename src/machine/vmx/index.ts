/** Intel's virtualization extensions (SDM 3 chapters 23 to 30), as parts of module S. */
import type { Module } from "../wasm/module.ts";
import { buildContext } from "./context.ts";
import { buildControlChecks } from "./checks_controls.ts";
import { buildGuestChecks } from "./checks_guest.ts";
import { buildHostChecks } from "./checks_host.ts";
import { buildEntry } from "./entry.ts";
import { buildExit } from "./exit.ts";
import { buildTables } from "./layout.ts";
import { buildMsrAreas } from "./msr_areas.ts";
import { buildOperations } from "./operations.ts";
import { buildStub } from "./stub.ts";
import { buildTimer } from "./timer.ts";

export { buildVmxHooks } from "./intercept.ts";
export { vmxCapability } from "./capabilities.ts";
export { vmxGroup } from "./instructions.ts";

/**
 * The operations of VMX. Built after `buildVmxHooks`, the walks, `refresh` and event delivery, which
 * they call.
 */
export function buildVmxFunctions(m: Module): void {
  buildTables(m);
  buildControlChecks(m);
  buildHostChecks(m);
  buildGuestChecks(m);
  buildOperations(m);
  buildMsrAreas(m);
  buildTimer(m);
  buildContext(m);
  buildExit(m);
  buildEntry(m);
  buildStub(m);
}
