/** The plan of a domain in a hardware virtual machine, with nested or shadow paging. */
import { MSR } from "../abi/x86/msr.ts";
import {
  type FrameSource,
  type HvmOps,
  type HvmVcpu,
  type RegisterName,
  segmentRegisters,
} from "../hvm/ops.ts";
import { hvmOps } from "../hvm/vendors.ts";
import { Cpuid } from "../machine/cpuid.ts";
import { absentEncodings } from "../machine/features.ts";
import type { DomainMemory } from "../xen/domain.ts";
import { Frames } from "../xen/frames.ts";
import type { Host } from "../xen/host.ts";
import { HvmEngine } from "../xen/hvm.ts";
import { HostInterrupts } from "../xen/irq.ts";
import { P2M } from "../xen/p2m.ts";
import type { Processor } from "../xen/processor.ts";
import { defaultShadowMemory, LEAST_SHADOW_MEMORY, Shadow } from "../xen/shadow.ts";
import type { InitialState } from "./entry.ts";
import { afterFirmware } from "./firmware.ts";
import type { Alias } from "./load.ts";
import { type DomainConfig, type Ground, type Plan, refusesOfXen } from "./plan.ts";
import { equipXen } from "./xen.ts";

export const HVM: Plan = {
  engine: "hvm",
  alone: false,
  refuses: (config) => [
    config.shadowMemory !== undefined && config.paging !== "shadow" && [
      "shadowMemory was given",
      `there are no shadow tables without paging "shadow"`,
    ],
    ...refusesOfXen(config),
  ],
  ground,
};

/** Frames of the host's, mapped as the guest's memory, and a vCPU. */
function ground(host: Host, config: DomainConfig): Ground {
  const { ops, frames } = enableHvm(host);
  const pages = config.memory / 4096;
  const shadow = config.paging === "shadow" ? shadowBytes(config) : 0;
  requireFrames(config, frames.free, ownFrames(pages, config.vcpus) + config.vcpus * shadow / 4096);
  const id = host.newId();
  const p2m = new P2M(host.machine, frames, id, ops.nestedFormat, pages);
  let engines: readonly HvmEngine[];
  for (let gfn = 0; gfn < pages; gfn++) {
    // The legacy hole belongs to the graphics adapter.
    if (gfn < 0xa0 || gfn >= 0xc0) p2m.map(gfn, frames.allocate(id));
  }
  return {
    id,
    memory: guestMemory(host, p2m, config.memory, id),
    equip: (domain, loaded) => {
      for (const alias of loaded.aliases ?? []) mapRom(p2m, alias);
      engines = domain.vcpus.map((vcpu) => {
        const hvm = ops.createVcpu(vcpu.processor.hvm!, frameSource(frames, id));
        return vcpu.engine = new HvmEngine(
          vcpu,
          ops,
          hvm,
          p2m,
          vcpu.processor.interrupts!,
          domain.cpuid,
        );
      });
      if (config.xen) equipXen(domain, p2m, frames, loaded.e820, config);
      const changed = (engine: HvmEngine) => engine.poke();
      return {
        changed: (n) => n === undefined ? engines.forEach(changed) : changed(engines[n]),
        signalled: (n) => changed(engines[n]),
        a20: (open) => {
          p2m.a20 = open;
          for (const { hvm } of engines) ops.flushTranslations(hvm);
        },
        priority: (cr8, n) => engines[n].priority(cr8),
        tscOffset: (n) => engines[n].msrs.get(MSR.TSC_ADJUST) ?? 0n,
      };
    },
    enter: (_, board, loaded) => {
      host.unload();
      const [{ hvm, on }] = engines;
      for (const engine of engines) {
        ops.setNestedRoot(engine.hvm, p2m.root);
        if (shadow) engine.shadow = new Shadow(p2m, ops, engine.hvm, frames, id, shadow);
        engine.start();
      }
      setVcpuState(ops, hvm, loaded.entry);
      // The vCPU is on the processor until it is unloaded.
      afterFirmware(on.cpu, board, loaded, config.xen);
      ops.unload(on);
    },
    release: () => frames.releaseAll(id),
  };
}

function requireFrames({ name, memory }: DomainConfig, free: number, own: number): void {
  const pages = memory / 4096, mebibytes = (frames: number) => Math.ceil(frames / 256);
  if (free >= pages + own) return;
  throw new RangeError(
    `domain ${name} needs ${mebibytes(pages)} MiB, and ${mebibytes(own)} MiB for its tables; ` +
      `the host has ${Math.floor(free / 256)} MiB free: start it with more memory`,
  );
}

/** Frames at the bottom of machine memory that are the host's own. */
const HOST_FRAMES = 256;

const READ_EXECUTE = { read: true, write: false, execute: true } as const;

/** Switches the host's virtualization hardware on, once. */
function enableHvm(host: Host): { ops: HvmOps; frames: Frames } {
  const { machine, processors } = host;
  host.frames ??= new Frames(machine, HOST_FRAMES, () => host.world.random32());
  const { frames } = host;
  if (!host.ops) {
    const ops = host.ops = hvmOps(host.options.cpu);
    const cpuid = new Cpuid(host.options.cpu);
    for (const processor of processors) {
      const { cpu } = processor;
      cpu.hooks.cpuid = cpuid.install(cpu.i32);
      cpu.predecoder.absent = absentEncodings(cpuid);
      processor.interrupts = timerOf(processor);
      processor.hvm = ops.enable(cpu, frameSource(frames, -1));
    }
    host.registerHypervisor(frames);
  }
  return { ops: host.ops, frames };
}

function timerOf({ cpu, vcpus }: Processor): HostInterrupts {
  const irq = new HostInterrupts(cpu);
  irq.handlers.set(0, () => {
    for (const { engine } of vcpus) if (engine instanceof HvmEngine) engine.timer();
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
function guestMemory(host: Host, p2m: P2M, size: number, id: number): DomainMemory {
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
    register: (blocks) => p2m.register(blocks),
    release: () => p2m.frames.releaseAll(id),
  };
}

/** The registers of a vCPU at the start of a guest. */
export function setVcpuState(ops: HvmOps, vcpu: HvmVcpu, entry: InitialState): void {
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
function ownFrames(pages: number, vcpus: number): number {
  const tables = [1, 2, 3].map((level) => Math.ceil(pages / 512 ** level));
  return tables.reduce((sum, n) => sum + n, 56 + 8 * vcpus);
}

/** Bytes for shadow tables of each vCPU: they have the domain's alike. */
function shadowBytes({ vcpus, memory, shadowMemory }: DomainConfig): number {
  const bytes = shadowMemory ?? defaultShadowMemory(vcpus, memory);
  const least = vcpus * LEAST_SHADOW_MEMORY;
  if (!Number.isInteger(bytes) || bytes % 4096 || bytes < least) {
    throw new RangeError(
      `shadowMemory: a multiple of 4 KiB from ${least} bytes on was expected, ` +
        `${bytes} bytes were given`,
    );
  }
  return Math.floor(bytes / 4096 / vcpus) * 4096;
}
