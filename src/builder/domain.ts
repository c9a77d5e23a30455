/** The domain builder: memory, loaded kernel, board and engine, by the plan of the domain's type. */
import { BOOTS, type GuestType } from "../abi/boot/images.ts";
import { guestCpuid } from "../machine/features.ts";
import { Domain } from "../xen/domain.ts";
import type { Host } from "../xen/host.ts";
import { BARE } from "./bare.ts";
import { Board } from "./board.ts";
import { e820 } from "./e820.ts";
import { counted } from "./errors.ts";
import { HVM } from "./hvm.ts";
import { loadGuest } from "./images.ts";
import type { LoadedGuest } from "./load.ts";
import type { BoardEvents, DomainConfig, Plan } from "./plan.ts";
import { xenLeaves } from "./xen.ts";

export type { DomainConfig } from "./plan.ts";

export interface BuiltDomain {
  readonly host: Host;
  readonly domain: Domain;
  readonly board: Board;
  readonly loaded: LoadedGuest;
}

/** How each type of domain is made; of one that cannot be made yet, why. */
const PLANS: Record<GuestType, Plan | string> = {
  bare: BARE,
  hvm: HVM,
  pvh: HVM,
  pv: "paravirtual domains are not available yet",
};

const refuse = (name: string, what: string, why: string) =>
  new Error(`domain ${name}: ${what}, but ${why}`);

/** The plan for a configuration. @throws {Error} naming what of it would be accepted and ignored */
export function planOf(config: Omit<DomainConfig, "kernel">): Plan {
  const { name, type } = config, plan = PLANS[type];
  if (typeof plan === "string") throw refuse(name, `type "${type}" was asked for`, plan);
  for (const refused of plan.refuses(config)) if (refused) throw refuse(name, ...refused);
  return plan;
}

/** Refuses a domain beside those that are on the host. */
function refuseBeside(
  { domains, processors }: Host,
  plan: Plan,
  { name, vcpus }: DomainConfig,
): void {
  if (plan.alone && vcpus > processors.length) {
    const there = counted(processors.length, "processor");
    throw refuse(name, `${vcpus} vCPUs were asked for`, `a bare guest's are the host's: ${there}`);
  }
  if (plan.alone && domains.length > 0) {
    const others = counted(domains.length, "domain");
    throw new Error(`a bare domain needs the machine for itself, and it has ${others} already`);
  }
  if (domains.some((d) => d.type === "bare")) {
    throw new Error("a bare guest has the machine for itself: no hypervisor is on this host");
  }
}

/**
 * Makes a domain: it stands before its first instruction.
 *
 * @throws {BuilderError} if its kernel or what goes with it cannot be loaded
 * @throws {Error} if what is asked for is not available, or memory does not suffice
 */
export async function build(host: Host, config: DomainConfig): Promise<BuiltDomain> {
  const plan = planOf(config);
  refuseBeside(host, plan, config);
  const ground = plan.ground(host, config);
  try {
    const { id, memory } = ground;
    const { name, vcpus, weight, cap, clock, consoleMemory, cpuid } = config;
    const domain = new Domain(host, {
      id,
      name,
      type: plan.engine,
      memory,
      vcpus,
      weight,
      cap,
      clock,
      consoleMemory,
    });
    domain.cpuid = guestCpuid(host.options.cpu, cpuid, plan.engine === "bare", vcpus);
    if (config.xen) domain.cpuid.edit(xenLeaves(id));
    const loaded = await load(domain, config);
    const board = makeBoard(domain, config, loaded, ground.equip(domain, loaded));
    domain.platform = board;
    ground.enter(domain, board, loaded);
    host.join(domain);
    return { host, domain, board, loaded };
  } catch (error) {
    ground.release();
    throw error;
  }
}

/** Loads the kernel and its companions into the memory of a domain. */
function load(domain: Domain, config: DomainConfig): Promise<LoadedGuest> {
  const { kernel, ramdisk, modules, cmdline, type, vcpus, xen } = config;
  const { eax: signature, edx: features } = domain.cpuid.read(1, 0),
    apic = domain.cpuid.has("apic");
  return loadGuest({
    memory: domain.memory,
    kernel,
    ramdisk,
    modules,
    cmdline,
    type,
    e820: e820(domain.memory.size, xen),
    acpi: { processors: vcpus, apic },
    mp: apic && vcpus > 1 ? { processors: vcpus, signature, features } : undefined,
    firmware: { unixTime: domain.host.world.unixTime },
  });
}

function makeBoard(
  domain: Domain,
  config: DomainConfig,
  loaded: LoadedGuest,
  own: BoardEvents,
): Board {
  const { world } = domain.host;
  return new Board({
    ...own,
    now: () => domain.now,
    timeOfTsc: (tsc, processor) => Number(BigInt.asIntN(64, tsc - own.tscOffset(processor))),
    has: (feature) => domain.cpuid.has(feature),
    stall: (nanoseconds) => domain.host.stall(nanoseconds),
    output: (byte) => domain.emit(byte),
    end: (reason, detail) => domain.end(reason, detail),
    post: (code) => domain.post(code),
  }, {
    unixTime: world.unixTime,
    memory: config.memory,
    vcpus: config.vcpus,
    e820: loaded.e820,
    firmware: !BOOTS[loaded.boot].firmware,
    consolePorts: config.consolePorts,
  });
}
