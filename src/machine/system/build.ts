/** The functions of segmentation, exceptions and control state, added in the order of their needs. */
import type { Module } from "../wasm/module.ts";
import { buildDebugMatch } from "./exceptions/debug.ts";
import { buildDeliver } from "./exceptions/deliver.ts";
import { buildGateHelpers, buildGates } from "./exceptions/gates.ts";
import { buildControlState } from "./control_state.ts";
import { buildMsrs } from "./msr_state.ts";
import { buildDescriptors } from "./segmentation/descriptor.ts";
import { buildFar } from "./segmentation/far.ts";
import { buildInformation } from "./segmentation/information.ts";
import { buildIret, buildVirtualInterrupt } from "./segmentation/iret.ts";
import { buildSegmentLoads } from "./segmentation/load.ts";
import { buildTasks } from "./segmentation/tasks.ts";
import { buildIoPermission } from "./io_permission.ts";

/** Functions that are called before their bodies come. */
const LATER: Record<string, readonly ("i32" | "i64")[]> = {
  pushFar: ["i32", "i64", "i32"],
  farSystem: ["i32", "i64", "i32", "i64"],
  callGate: ["i64", "i32", "i64"],
  callGate64: ["i64", "i64", "i32", "i64"],
  setStackTo: ["i64", "i32"],
  enterReal: ["i32", "i32", "i64"],
};

/** Descriptors, segment loads, far transfers and task switches. */
function buildSegments(m: Module): void {
  for (const [name, params] of Object.entries(LATER)) m.declareLater(name, params, []);
  buildDescriptors(m);
  buildSegmentLoads(m);
  buildInformation(m);
  buildControlState(m);
  buildTasks(m);
  buildGateHelpers(m);
  buildFar(m);
  buildIret(m);
}

/** `deliver()` and what it is made of. */
function buildExceptions(m: Module): void {
  buildGates(m);
  buildDeliver(m);
  buildVirtualInterrupt(m);
  buildDebugMatch(m);
}

/**
 * Everything of the system group that lies in module S: needs the mmu, the flags and
 * `buildLinearAddresses` before it. `vectoringExit` and `intercept` are called if they exist by now.
 */
export function buildSystemFunctions(m: Module): void {
  // A machine without virtualization extensions intercepts nothing.
  if (!m.has("intercept")) m.func("intercept", ["i32", "i64"], [], () => {});
  buildSegments(m);
  buildExceptions(m);
  buildMsrs(m);
  buildIoPermission(m);
}
