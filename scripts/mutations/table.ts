/**
 * All mutations. A new group is a file beside this one, and a line here.
 *
 * @module
 */
import { ABI_MUTATIONS } from "./abi.ts";
import { DEVICE_MUTATIONS } from "./devices.ts";
import { HVM_MUTATIONS } from "./hvm.ts";
import { LOADER_MUTATIONS } from "./loaders.ts";
import { MACHINE_MUTATIONS } from "./machine.ts";
import type { Mutation } from "./mutation.ts";
import { PLATFORM_MUTATIONS } from "./platform.ts";
import { PROCESSOR_MUTATIONS } from "./processors.ts";
import { SHADOW_MUTATIONS } from "./shadow.ts";
import { STATE_MUTATIONS } from "./state.ts";
import { SVM_MUTATIONS } from "./svm.ts";
import { TIME_MUTATIONS } from "./time.ts";
import { VMX_MUTATIONS } from "./vmx.ts";

export const MUTATIONS: readonly Mutation[] = [
  ...VMX_MUTATIONS,
  ...SVM_MUTATIONS,
  ...HVM_MUTATIONS,
  ...SHADOW_MUTATIONS,
  ...MACHINE_MUTATIONS,
  ...PROCESSOR_MUTATIONS,
  ...DEVICE_MUTATIONS,
  ...PLATFORM_MUTATIONS,
  ...TIME_MUTATIONS,
  ...LOADER_MUTATIONS,
  ...STATE_MUTATIONS,
  ...ABI_MUTATIONS,
];
