/** The plan of a bare domain: the machine itself. */
import { absentEncodings } from "../machine/features.ts";
import { PROCESSORS } from "../machine/state.ts";
import type { Cpu } from "../machine/cpu.ts";
import { BareEngine } from "../xen/bare.ts";
import type { DomainMemory } from "../xen/domain.ts";
import type { Host } from "../xen/host.ts";
import type { InterruptPort } from "../xen/platform.ts";
import type { Vcpu } from "../xen/vcpu.ts";
import type { InitialState } from "./entry.ts";
import { afterFirmware } from "./firmware.ts";
import { type Ground, type Plan, refusesOfXen } from "./plan.ts";
import { RomWindow } from "./rom_window.ts";

const ALONE = "a bare guest has the machine for itself";

export const BARE: Plan = {
  engine: "bare",
  alone: true,
  refuses: ({ vcpus, paging, shadowMemory, xen, weight, cap, clock, ...rest }) => [
    vcpus > PROCESSORS && [
      `${vcpus} vCPUs were asked for`,
      `a bare guest's are the host's processors, of which there are at most ${PROCESSORS}`,
    ],
    shadowMemory !== undefined && ["shadowMemory was given", ALONE],
    paging === "shadow" && [`paging "shadow" was asked for`, ALONE],
    !!xen && ["Xen's interface was asked for", `${ALONE}: there is no Xen under it`],
    weight !== undefined && ["a weight was given", ALONE],
    !!cap && ["a cap was given", ALONE],
    clock === "own" && [`clock "own" was asked for`, `${ALONE}: its time is the machine's`],
    ...refusesOfXen({ vcpus, paging, ...rest }),
  ],
  ground,
};

/** The machine, which must have been made with just the guest's memory. */
function ground(host: Host): Ground {
  const { machine, machine: { cpu, cpus } } = host;
  return {
    id: host.newId(),
    memory: machineMemory(host),
    equip: (domain) => {
      // The legacy hole belongs to the graphics adapter.
      machine.setFrames(0xa0000, 0xc0000, "mmio");
      for (const each of cpus) {
        each.hooks.cpuid = domain.cpuid.install(each.i32, each.id);
        // The processor is the guest's own: it has what its CPUID shows, and no more.
        const own = () => each.predecoder.absent = absentEncodings(domain.cpuid);
        own();
        domain.cpuid.onChange.add(own);
      }
      const changed = (vcpu: Vcpu) => {
        vcpu.cpu.endSlice();
        host.kick(vcpu);
      };
      return {
        changed: (n) => n === undefined ? domain.vcpus.forEach(changed) : changed(domain.vcpus[n]),
        signalled: (n) => {
          takeSignals(domain.vcpus[n].port!, cpus[n]);
          host.kick(domain.vcpus[n]);
        },
        a20: (open) => cpus.forEach((each) => each.a20 = open),
        priority: (cr8, n) => cpus[n].set("cr8", BigInt(cr8)),
        tscOffset: (n) => cpus[n].get("tscAdjust"),
      };
    },
    enter: (domain, board, loaded) => {
      for (const alias of loaded.aliases ?? []) {
        machine.setFrames(alias.target, alias.target + alias.end - alias.start, "rom");
        board.bus.attach(new RomWindow(domain.memory, alias));
      }
      for (const vcpu of domain.vcpus) {
        vcpu.engine = new BareEngine(vcpu);
      }
      setInitialState(cpu, loaded.entry);
      for (const { id, cpu } of domain.vcpus) if (id > 0) cpu.waitForSipi();
      afterFirmware(cpu, board, loaded);
    },
    release: () => {},
  };
}

/** The processor has latches of its own for an NMI and for INIT. */
function takeSignals({ signals }: InterruptPort, cpu: Cpu): void {
  for (let n = signals.nmi; n > 0; n--) cpu.raiseNmi();
  if (signals.init) cpu.raiseInit();
  if (signals.startup >= 0) cpu.startUp(signals.startup);
  Object.assign(signals, { nmi: 0, init: false, startup: -1 });
}

/** Machine memory as the memory of a bare guest. */
function machineMemory(host: Host): DomainMemory {
  const { machine } = host;
  const check = (gpa: number, length: number) => {
    if (!Number.isInteger(gpa) || gpa < 0 || gpa + length > machine.size) {
      throw new RangeError(
        `physical address 0x${gpa.toString(16)} (${length} bytes): memory ends at 0x${
          machine.size.toString(16)
        }`,
      );
    }
  };
  return {
    size: machine.size,
    read: (gpa, length) => {
      check(gpa, length);
      return machine.ram.slice(gpa, gpa + length);
    },
    write: (gpa, bytes) => {
      check(gpa, bytes.length);
      machine.write(gpa, bytes);
    },
    machineAddress: (gpa) => gpa < machine.size ? gpa : -1,
  };
}

/** Registers of a processor at the start of a guest. */
export function setInitialState(cpu: Cpu, entry: InitialState): void {
  cpu.reset();
  cpu.setAll(entry.regs);
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
