/** The domain builder: memory, loaded kernel, board and engine, for every type of domain. */
import { Domain, type DomainMemory } from "../xen/domain.ts";
import type { Host } from "../xen/host.ts";
import { BareEngine } from "../xen/bare.ts";
import { Cpuid, type CpuidModel } from "../machine/cpuid.ts";
import { missingFeatures } from "../machine/features.ts";
import type { Cpu } from "../machine/cpu.ts";
import { Board } from "./board.ts";
import type { InitialState } from "./entry.ts";
import { type GuestOptions, loadGuest } from "./guest.ts";
import type { LoadedGuest, NamedBytes } from "./load.ts";
import { RomWindow } from "./rom_window.ts";

export interface DomainConfig {
  readonly name: string;
  readonly type: "bare" | "hvm" | "pvh" | "pv";
  readonly kernel: NamedBytes;
  readonly ramdisk?: NamedBytes;
  readonly cmdline?: string;
  /** Bytes. */
  readonly memory: number;
  readonly vcpus: number;
  readonly paging: "hap" | "shadow";
  /** Model of the processor the guest sees, and features switched on or off by name. */
  readonly cpuid?: {
    readonly model?: CpuidModel;
    readonly features?: Readonly<Record<string, boolean>>;
  };
  readonly consolePorts?: readonly number[];
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

function makeBoard(host: Host, domain: Domain, config: DomainConfig): Board {
  const { cpu } = host.machine;
  return new Board({
    now: () => cpu.now,
    changed: () => {},
    output: (bytes) => domain.emit(bytes),
    end: (reason, detail) => domain.end(reason, detail),
    post: (code) => domain.posts.push(code),
    a20: () => {},
    nmi: () => {},
  }, {
    unixTime: host.world.unixTime,
    memory: config.memory,
    vcpus: config.vcpus,
    consolePorts: config.consolePorts,
  });
}

/** Loads the kernel and its companions into the memory of a domain. */
function load(domain: Domain, config: DomainConfig): Promise<LoadedGuest> {
  const options: GuestOptions = {
    memory: domain.memory,
    kernel: config.kernel,
    ramdisk: config.ramdisk,
    cmdline: config.cmdline,
    protocol: config.type === "pvh" ? "pvh" : "auto",
    acpi: { processors: config.vcpus },
  };
  return loadGuest(options);
}

/** A guest on the bare processor. The host must have been made with just its memory. */
export async function buildBare(host: Host, config: DomainConfig): Promise<BuiltDomain> {
  if (host.domains.length > 0) {
    throw new Error("a bare guest needs the machine for itself; there is a domain on it already");
  }
  const { machine } = host;
  const domain = new Domain(host, host.newId(), config.name, "bare", bareMemory(host));
  const loaded = await load(domain, config);
  // The legacy hole belongs to the graphics adapter.
  machine.setFrames(0xa0000, 0xc0000, "mmio");
  const board = makeBoard(host, domain, config);
  for (const alias of loaded.aliases ?? []) {
    machine.setFrames(alias.target, alias.target + alias.end - alias.start, "rom");
    board.bus.attach(new RomWindow(domain.memory, alias));
  }
  domain.platform = board;
  domain.engine = new BareEngine(machine, domain);
  const cpuid = new Cpuid(config.cpuid?.model ?? host.options.cpu, {
    ...missingFeatures(),
    vmx: false,
    ...config.cpuid?.features,
  });
  machine.cpu.hooks.cpuid = cpuid.install(machine.cpu.i32);
  setInitialState(machine.cpu, loaded.entry);
  host.domains.push(domain);
  return { domain, board, loaded };
}
