/**
 * xvm: a scriptable hypervisor on a simulated computer. Real x86 guests run on it, and everything in
 * it is a typed object: domains, virtual processors, registers, page tables, VM exits.
 *
 * ```ts
 * import { Hypervisor } from "xvm";
 *
 * await using hv = await Hypervisor.demo();
 * const [dom] = hv.domains;
 * const stop = await dom.until("execute", { address: "timer" });
 * console.log(stop.vcpu.disassemble());
 * ```
 *
 * @module
 */
export { Hypervisor } from "./src/debug/hypervisor.ts";
export { HostCpu } from "./src/debug/host_cpu.ts";
export type { DomainOptions, ModuleOptions, StartOptions } from "./src/debug/options.ts";
export { type Ending, GuestDomain as Domain, type Statistics } from "./src/debug/domain.ts";
export type { DeviceHandlers, DeviceRange, PendingRequest } from "./src/debug/devices.ts";
export type { Predicate, StopOf, UntilOptions } from "./src/debug/events/verbs.ts";
export { GuestVcpu as Vcpu } from "./src/debug/vcpu.ts";
export type { StepOptions } from "./src/debug/events/steps.ts";
export type { RunstateName } from "./src/xen/vcpu.ts";
export type { Position } from "./src/debug/vcpu_subject.ts";
export { Backtrace, type Frame, type Line, Listing } from "./src/debug/views/code.ts";
export { type HypercallCount, HypercallCounts } from "./src/debug/views/hypercalls.ts";
export {
  type PermissionText,
  StoreClient as Xenstore,
  type StoreEvent,
  StoreNodes,
  StoreTransaction,
  type StoreValue,
  StoreWatch,
  XenstoreError,
} from "./src/dom0/client.ts";
export { EventChannel, EventChannelTable } from "./src/debug/views/event_channels.ts";
export type { ChannelState } from "./src/xen/event_channels.ts";
export { type Grant, Grants, type GrantUse, type MappedGrant } from "./src/debug/views/grants.ts";
export { Picture } from "./src/debug/views/picture.ts";
export { ExitHistory, type PastExit } from "./src/debug/views/exits.ts";
export { Schedule, type ScheduleOptions } from "./src/debug/views/schedule.ts";
export type { PastTurn, TurnEnd } from "./src/xen/turns.ts";
export { GuestStopped } from "./src/debug/waits.ts";
export { type Response, Stop } from "./src/debug/events/stop.ts";
export { type BreakOptions, Breakpoint } from "./src/debug/events/breakpoint.ts";
export type { Fields, FieldsOf, FilterOf, Filters, Kind, KindRows } from "./src/debug/kinds.ts";
export { fieldNames, type Filter } from "./src/debug/events/filters.ts";
export type { Address, GivenOf, SeenOf } from "./src/hvm/fields.ts";
export { kinds } from "./src/debug/kinds.ts";
export { Console } from "./src/debug/views/console.ts";
export { type CpuidOptions, CpuidTable, parseCpuid } from "./src/debug/views/cpuid.ts";
export type { CpuidEdit, CpuidModel, CpuidResult, CpuidRow } from "./src/machine/cpuid.ts";
export { Dump, Memory, type SearchOptions } from "./src/debug/views/memory.ts";
export {
  type MapRange,
  PageMap,
  PageTables,
  PageWalk,
  type PagingMode,
  type Rights,
  type WalkLevel,
} from "./src/debug/views/page_tables.ts";
export { type ShadowEntry, ShadowTable, ShadowView } from "./src/debug/views/shadow.ts";
export type { ShadowCounts } from "./src/xen/shadow.ts";
export type { PoolCounts } from "./src/xen/shadow_pool.ts";
export type {
  PlainRegister,
  PlainRegisters,
  Registers,
  RegisterViews,
} from "./src/debug/views/registers.ts";
export type { MsrName, TableRegister } from "./src/debug/register_file.ts";
export {
  Difference,
  lockstep,
  type LockstepOptions,
  type Side,
  sideOf,
} from "./src/debug/lockstep.ts";
export {
  compare,
  type ComparedExit,
  type ComparedRun,
  type CompareOptions,
  Comparison,
  type Configuration,
  configurationOf,
  runUntil,
} from "./src/debug/compare.ts";
export { type Plain, RecordError } from "./src/machine/record.ts";
export { type StateBlocks, StateDiff } from "./src/debug/views/state_view.ts";
export type { StateDifference } from "./src/xen/state_diff.ts";
export {
  type DigestDifference,
  type DigestRecord,
  GuestDigest,
  type VisibleSection,
} from "./src/debug/digest.ts";
export type { Bus } from "./src/devices/bus.ts";
export type { Device, MmioRange, PortRange, Ranges, Size } from "./src/devices/device.ts";
export { type NamedAddress, type SymbolPlace, SymbolTable } from "./src/builder/symbols.ts";
export type { GuestType } from "./src/abi/boot/images.ts";
export type { CpuidRegister } from "./src/abi/x86/cpuid.ts";
export type { MSRS } from "./src/abi/x86/msr.ts";
export type { EventType, GuestEvent } from "./src/hvm/exit.ts";
export type { Segment, SegmentRegister } from "./src/hvm/ops.ts";
export type { InspectOptions } from "./src/debug/values.ts";
export { Why } from "./src/debug/views/why.ts";
export type { CpuModel } from "./src/machine/vendors.ts";
