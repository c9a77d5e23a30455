/** The domain builder: memory, loaded kernel, board and engine, for every type of domain. */
import { Domain, type DomainMemory } from "../xen/domain.ts";
import type { Host } from "../xen/host.ts";
import { BareEngine } from "../xen/bare.ts";
import { hvmOps } from "../hvm/vendors.ts";
import {
  type FrameSource,
  type HvmCpu,
  type HvmOps,
  type HvmVcpu,
  type RegisterName,
  segmentRegisters,
} from "../hvm/ops.ts";
import { MSR } from "../abi/x86/msr.ts";
import { Frames } from "../xen/frames.ts";
import { HvmEngine } from "../xen/hvm.ts";
import { HostInterrupts } from "../xen/irq.ts";
import { P2M } from "../xen/p2m.ts";
import { defaultShadowMemory, LEAST_SHADOW_MEMORY, Shadow } from "../xen/shadow.ts";
import { Cpuid, type CpuidEdit, type CpuidModel } from "../machine/cpuid.ts";
import { absentEncodings, guestCpuid } from "../machine/features.ts";
import type { Cpu } from "../machine/cpu.ts";
import { Board } from "./board.ts";
import type { InitialState } from "./entry.ts";
import { programChips } from "./firmware.ts";
import { type GuestOptions, loadGuest } from "./guest.ts";
import type { Alias, BootModule, LoadedGuest, NamedBytes } from "./load.ts";
import type { PlatformEvents } from "../xen/platform.ts";
import { RomWindow } from "./rom_window.ts";

export interface DomainConfig {
  readonly name: string;
  readonly type: "bare" | "hvm" | "pvh" | "pv";
  readonly kernel: NamedBytes;
  readonly ramdisk?: NamedBytes;
  readonly modules?: readonly BootModule[];
  readonly cmdline?: string;
  /** Bytes. */
  readonly memory: number;
  readonly vcpus: number;
  readonly paging: "hap" | "shadow";
  /** The processor the guest sees: a model, and changes of its features and leaves. */
  readonly cpuid?: CpuidEdit & { readonly model?: CpuidModel };
  readonly consolePorts?: readonly number[];
  /** Bytes of console output that are kept. */
  readonly consoleMemory?: number;
  /** Share of the processor beside others, 1 to 65535; and most of it in percent, 0: no cap. */
  readonly weight?: number;
  readonly cap?: number;
  /** Bytes of machine memory for shadow tables; none given: Xen's rule. */
  readonly shadowMemory?: number;
}

export interface BuiltDomain {
  readonly domain: Domain;
  readonly board: Board;
  readonly loaded: LoadedGuest;
}

/** Machine memory as the memory of a bare guest. */
function bareMemory(host: Host): DomainMemory {
  const { machine } = host;
  const check = (gpa: number, length: number) => {
    if (!Number.isInteger(gpa) || gpa < 0 || gpa + length > machine.ram.length) {
      throw new RangeError(
        `physical address 0x${gpa.toString(16)} (${length} bytes): memory ends at 0x${
          machine.ram.length.toString(16)
        }`,
      );
    }
  };
  return {
    size: machine.ram.length,
    read: (gpa, length) => {
      check(gpa, length);
      return machine.ram.slice(gpa, gpa + length);
    },
    write: (gpa, bytes) => {
      check(gpa, bytes.length);
      machine.write(gpa, bytes);
    },
    machineAddress: (gpa) => gpa < machine.ram.length ? gpa : -1,
  };
}

/** Registers of a processor at the start of a guest. */
export function setInitialState(cpu: Cpu, entry: InitialState): void {
  cpu.reset();
  for (const [name, value] of Object.entries(entry.regs)) cpu.set(name, value);
  cpu.set("rip", entry.rip);
  cpu.set("rflags", entry.rflags);
  for (const name of ["cr0", "cr3", "cr4", "efer"] as const) cpu.set(name, entry[name]);
  const order = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;
  order.forEach((name, n) => cpu.setSegment(n, entry.segments[name]));
  for (const table of ["gdtr", "idtr"] as const) {
    cpu.set(`${table}.base`, entry[table].base);
    cpu.set(`${table}.limit`, BigInt(entry[table].limit));
  }
  cpu.flushTlb();
}

/** What firmware has done to processor and chips before it hands over; a ROM does it itself. */
function afterFirmware(cpu: Cpu, board: Board, loaded: LoadedGuest): void {
  if (loaded.format === "rom") return;
  cpu.initFloat();
  programChips(board.bus);
}

/** What differs in a board between the kinds of domain. */
type BoardEvents = Pick<PlatformEvents, "changed" | "nmi" | "priority" | "a20"> & {
  /** The guest's time-stamp counter less the domain's time. */
  tscOffset(): bigint;
};

function makeBoard(
  host: Host,
  domain: Domain,
  config: DomainConfig,
  loaded: LoadedGuest,
  own: BoardEvents,
): Board {
  const { cpu } = host.machine;
  return new Board({
    ...own,
    now: () => domain.now,
    timeOfTsc: (tsc) => Number(BigInt.asIntN(64, tsc - own.tscOffset())),
    has: (feature) => domain.cpuid.has(feature),
    stall: (nanoseconds) => cpu.idle += nanoseconds,
    output: (byte) => domain.emit(byte),
    end: (reason, detail) => domain.end(reason, detail),
    post: (code) => domain.post(code),
  }, {
    unixTime: host.world.unixTime,
    memory: config.memory,
    vcpus: config.vcpus,
    e820: loaded.e820,
    firmware: loaded.format === "rom",
    consolePorts: config.consolePorts,
  });
}

/** Loads the kernel and its companions into the memory of a domain. */
function load(domain: Domain, config: DomainConfig): Promise<LoadedGuest> {
  const options: GuestOptions = {
    memory: domain.memory,
    kernel: config.kernel,
    ramdisk: config.ramdisk,
    modules: config.modules,
    cmdline: config.cmdline,
    protocol: config.type === "pvh" ? "pvh" : "auto",
    acpi: { processors: config.vcpus, apic: domain.cpuid.has("apic") },
    firmware: { unixTime: domain.host.world.unixTime },
  };
  return loadGuest(options);
}

/** Frames at the bottom of machine memory that are the host's own. */
const HOST_FRAMES = 256;

const READ_EXECUTE = { read: true, write: false, execute: true } as const;

/** Switches the host's virtualization hardware on, once. */
function enableHvm(host: Host): { ops: HvmOps; on: HvmCpu; frames: Frames; irq: HostInterrupts } {
  const { machine } = host;
  host.interrupts ??= timerOf(host);
  host.frames ??= new Frames(machine, HOST_FRAMES, () => host.world.random32());
  const { frames } = host;
  if (!host.hvm) {
    const ops = hvmOps(host.options.cpu);
    const cpuid = new Cpuid(host.options.cpu);
    machine.cpu.hooks.cpuid = cpuid.install(machine.cpu.i32);
    machine.cpu.predecoder.absent = absentEncodings(cpuid);
    host.hvm = { ops, on: ops.enable(machine.cpu, frameSource(frames, -1)) };
  }
  return { ...host.hvm, frames, irq: host.interrupts };
}

function timerOf(host: Host): HostInterrupts {
  const irq = new HostInterrupts(host.machine);
  irq.handlers.set(0, () => {
    for (const domain of host.domains) {
      if (domain.engine instanceof HvmEngine) domain.engine.timer();
    }
  });
  return irq;
}

function frameSource(frames: Frames, owner: number): FrameSource {
  return {
    allocate: (count = 1) =>
      (count === 1 ? frames.allocate(owner) : frames.allocateRun(owner, count)) * 4096,
    free: (address) => frames.release(address / 4096),
  };
}

/** Guest-physical memory through the domain's P2M. */
function hvmMemory(host: Host, p2m: P2M, size: number): DomainMemory {
  const { machine } = host;
  const each = (
    gpa: number,
    length: number,
    part: (at: number, from: number, n: number) => void,
  ) => {
    for (let done = 0; done < length;) {
      const frame = p2m.machineFrame(Math.floor((gpa + done) / 4096));
      if (!Number.isInteger(gpa) || frame < 0) {
        throw new RangeError(
          `guest-physical address 0x${(gpa + done).toString(16)}: there is no memory; the domain ` +
            `has 0x${size.toString(16)} bytes`,
        );
      }
      const inPage = (gpa + done) % 4096;
      const n = Math.min(4096 - inPage, length - done);
      part(frame * 4096 + inPage, done, n);
      done += n;
    }
  };
  return {
    size,
    read: (gpa, length) => {
      const bytes = new Uint8Array(length);
      each(gpa, length, (at, from, n) => bytes.set(machine.ram.subarray(at, at + n), from));
      return bytes;
    },
    write: (gpa, bytes) => {
      each(gpa, bytes.length, (at, from, n) => machine.write(at, bytes.subarray(from, from + n)));
    },
    machineAddress: (gpa) => {
      const frame = p2m.machineFrame(Math.floor(gpa / 4096));
      return frame < 0 ? -1 : frame * 4096 + gpa % 4096;
    },
  };
}

function setHvmState(ops: HvmOps, vcpu: HvmVcpu, entry: InitialState): void {
  for (const [name, value] of Object.entries(entry.regs)) {
    ops.setRegister(vcpu, name as RegisterName, value);
  }
  ops.setRegister(vcpu, "rip", entry.rip);
  ops.setRegister(vcpu, "rflags", entry.rflags);
  for (const name of segmentRegisters) ops.setSegment(vcpu, name, entry.segments[name]);
  ops.setDescriptorTable(vcpu, "gdtr", entry.gdtr);
  ops.setDescriptorTable(vcpu, "idtr", entry.idtr);
  ops.setMsr(vcpu, MSR.EFER, entry.efer);
  ops.setCr(vcpu, 4, entry.cr4);
  ops.setCr(vcpu, 3, entry.cr3);
  ops.setCr(vcpu, 0, entry.cr0);
}

/** A ROM's frames, at their place and at that of the alias: writes to either vanish. */
function mapRom(p2m: P2M, { start, end, target }: Alias): void {
  for (let at = 0; at < end - start; at += 4096) {
    const frame = p2m.machineFrame((target + at) / 4096);
    for (const base of [start, target]) p2m.map((base + at) / 4096, frame, READ_EXECUTE);
  }
}

/** Frames that a domain of so many pages needs besides: nested page tables, control structures. */
function ownFrames(pages: number): number {
  const tables = [1, 2, 3].map((level) => Math.ceil(pages / 512 ** level));
  return tables.reduce((sum, n) => sum + n, 64);
}

/** Refuses what would be accepted and ignored. @throws {Error} naming it */
function refuseIgnored(config: DomainConfig, bare: boolean): void {
  const { name, vcpus, paging, shadowMemory, weight, cap } = config;
  const refuse = (what: string, why: string) => {
    throw new Error(`domain ${name}: ${what}, but ${why}`);
  };
  if (vcpus !== 1) refuse(`${vcpus} vCPUs were asked for`, "one is available");
  if ((config.type === "bare") !== bare || config.type === "pv") {
    refuse(
      `type "${config.type}" was asked for`,
      `this makes ${bare ? "bare" : "hardware"} domains`,
    );
  }
  if (shadowMemory !== undefined && (bare || paging !== "shadow")) {
    refuse("shadowMemory was given", `there are no shadow tables without paging "shadow"`);
  }
  if (!bare) return;
  const alone = "a bare guest has the machine for itself";
  if (paging === "shadow") refuse(`paging "shadow" was asked for`, alone);
  if (weight !== undefined) refuse("a weight was given", alone);
  if (cap) refuse("a cap was given", alone);
}

/** Bytes for shadow tables. */
function shadowBytes({ vcpus, memory, shadowMemory }: DomainConfig): number {
  const bytes = shadowMemory ?? defaultShadowMemory(vcpus, memory);
  if (!Number.isInteger(bytes) || bytes % 4096 || bytes < LEAST_SHADOW_MEMORY) {
    throw new RangeError(
      `shadowMemory: a multiple of 4 KiB from ${LEAST_SHADOW_MEMORY} bytes on was expected, ` +
        `${bytes} bytes were given`,
    );
  }
  return bytes;
}

/** A guest in a hardware virtual machine, with nested or shadow paging. */
export async function buildHvm(host: Host, config: DomainConfig): Promise<BuiltDomain> {
  if (host.domains.some((d) => d.type === "bare")) {
    throw new Error("a bare guest has the machine for itself: no hypervisor is on this host");
  }
  refuseIgnored(config, false);
  const { ops, on, frames, irq } = enableHvm(host);
  const pages = config.memory / 4096;
  const shadowMemory = config.paging === "shadow" ? shadowBytes(config) : 0;
  const own = ownFrames(pages) + shadowMemory / 4096;
  if (frames.free < pages + own) {
    throw new RangeError(
      `domain ${config.name} needs ${Math.ceil(pages / 256)} MiB, and ${
        Math.ceil(own / 256)
      } MiB ` +
        `for its tables; the host has ${Math.floor(frames.free / 256)} MiB free: ` +
        `start it with more memory`,
    );
  }
  const id = host.newId();
  const p2m = new P2M(host.machine, frames, id, ops.nestedFormat, pages);
  try {
    for (let gfn = 0; gfn < pages; gfn++) {
      // The legacy hole belongs to the graphics adapter.
      if (gfn < 0xa0 || gfn >= 0xc0) p2m.map(gfn, frames.allocate(id));
    }
    const memory = hvmMemory(host, p2m, config.memory);
    const domain = new Domain(host, id, config.name, "hvm", memory, config, config.consoleMemory);
    domain.cpuid = guestCpuid(host.options.cpu, config.cpuid);
    const loaded = await load(domain, config);
    for (const alias of loaded.aliases ?? []) mapRom(p2m, alias);
    const vcpu = ops.createVcpu(on, frameSource(frames, id));
    const engine = new HvmEngine(domain, ops, on, vcpu, p2m, irq, domain.cpuid);
    const board = makeBoard(host, domain, config, loaded, {
      changed: () => engine.changed = true,
      nmi: () => engine.nmi(),
      a20: (open) => {
        p2m.a20 = open;
        ops.flushTranslations(vcpu);
      },
      priority: (cr8) => ops.setCr(vcpu, 8, BigInt(cr8)),
      tscOffset: () => engine.msrs.get(MSR.TSC_ADJUST) ?? 0n,
    });
    domain.platform = board;
    domain.engine = engine;
    host.switchTo(undefined);
    ops.setNestedRoot(vcpu, p2m.root);
    if (shadowMemory) {
      engine.shadow = new Shadow(p2m, ops, vcpu, frames, id, shadowMemory);
    }
    setHvmState(ops, vcpu, loaded.entry);
    // The vCPU is on the processor until it is unloaded.
    afterFirmware(host.machine.cpu, board, loaded);
    engine.start();
    ops.unload(on);
    host.domains.push(domain);
    return { domain, board, loaded };
  } catch (error) {
    frames.releaseAll(id);
    throw error;
  }
}

/** A guest on the bare processor. The host must have been made with just its memory. */
export async function buildBare(host: Host, config: DomainConfig): Promise<BuiltDomain> {
  if (host.domains.length > 0) {
    throw new Error("a bare guest needs the machine for itself; there is a domain on it already");
  }
  refuseIgnored(config, true);
  const { machine } = host;
  const memory = bareMemory(host);
  const domain = new Domain(
    host,
    host.newId(),
    config.name,
    "bare",
    memory,
    {},
    config.consoleMemory,
  );
  domain.cpuid = guestCpuid(host.options.cpu, config.cpuid, true);
  const loaded = await load(domain, config);
  // The legacy hole belongs to the graphics adapter.
  machine.setFrames(0xa0000, 0xc0000, "mmio");
  const { cpu } = machine;
  const board = makeBoard(host, domain, config, loaded, {
    changed: () => cpu.endSlice(),
    nmi: () => cpu.raiseNmi(),
    a20: (open) => cpu.a20 = open,
    priority: (cr8) => cpu.set("cr8", BigInt(cr8)),
    tscOffset: () => cpu.get("tscAdjust"),
  });
  for (const alias of loaded.aliases ?? []) {
    machine.setFrames(alias.target, alias.target + alias.end - alias.start, "rom");
    board.bus.attach(new RomWindow(domain.memory, alias));
  }
  domain.platform = board;
  domain.engine = new BareEngine(machine, domain);
  cpu.hooks.cpuid = domain.cpuid.install(cpu.i32);
  // The processor is the guest's own: it has what its CPUID shows, and no more.
  const own = () => cpu.predecoder.absent = absentEncodings(domain.cpuid);
  own();
  domain.cpuid.onChange.add(own);
  setInitialState(machine.cpu, loaded.entry);
  afterFirmware(machine.cpu, board, loaded);
  host.domains.push(domain);
  return { domain, board, loaded };
}
