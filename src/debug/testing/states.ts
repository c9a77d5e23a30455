/** What tests of saving and loading share. */
import { assert, assertEquals } from "@std/assert";
import { type ExitKind, exitRows } from "../../hvm/exit_kinds.ts";
import type { Plain } from "../../machine/record.ts";
import { HvmEngine } from "../../xen/hvm.ts";
import { packState } from "../../xen/state_file.ts";
import { type GuestDomain, subjectOf } from "../domain.ts";
import type { Hypervisor } from "../hypervisor.ts";
import { isExit, type Kind } from "../kinds.ts";
import { advance } from "../lockstep.ts";
import { type Configuration, hostOf } from "./hosts.ts";
import { everyExit, everyExitKernel } from "./every_exit.ts";

/** A seeded generator. */
export class Random {
  constructor(private x: number) {}
  below(n: number): number {
    this.x ^= this.x << 13;
    this.x ^= this.x >>> 17;
    this.x ^= this.x << 5;
    return (this.x >>> 0) % n;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
  shuffled<T>(list: readonly T[]): T[] {
    const left = [...list];
    return Array.from(list, () => left.splice(this.below(left.length), 1)[0]);
  }
}

/** A host in the middle of things: at an exit, if it has any. */
export async function standing(c: Configuration) {
  const host = await hostOf(c, everyExit(c.cpu));
  advance(host.dom, 9000);
  if (c.paging === "bare") host.dom.break("execute", { address: host.dom.vcpus[0].regs.rip });
  else await host.dom.until("msr");
  return host;
}
/** All that a refused load must leave as it was. */
export const signature = ({ hv, dom }: { hv: Hypervisor; dom: Hypervisor["domains"][number] }) =>
  `${hv.stateHash()} ${dom.stateHash()} ${dom.stop?.kind} ${dom.state} ` +
  `${dom.statistics().instructions} ${dom.statistics().time}`;

/** Where a label of the guest is. */
export const label = ({ cpu }: Configuration, name: string): bigint =>
  BigInt(everyExitKernel(cpu).symbols.get(name)!);

/** Runs to a stop; it has to come soon. */
function runTo(dom: GuestDomain, kind: Kind, filter: object): void {
  const b = dom.break(kind, filter as never);
  advance(dom, 300_000);
  b.delete();
  const is = kind === "mmio" ? ["mmio", "nested-page-fault"] : [kind];
  assert(dom.stop && is.includes(dom.stop.kind), `no stop of kind ${kind} came`);
}

/** The kinds of exit that the guest of every exit makes, in two rounds. */
async function kindsMade(c: Configuration): Promise<ReadonlySet<ExitKind>> {
  await using host = await hostOf(c, everyExit(c.cpu));
  const { dom } = host, { inner } = subjectOf(dom), { engine } = inner.vcpus[0];
  const made = new Set<ExitKind>();
  if (!(engine instanceof HvmEngine)) return made;
  dom.trace("any", { all: true }, ({ kind }) => void (isExit(kind) && made.add(kind)));
  advance(dom, 90_000);
  // All that a guest does and somebody can ask for.
  const missing = engine.ops.exitKinds.filter((kind) => {
    const { intercept, handled, feature = "fpu" } = exitRows[kind];
    return intercept && handled !== "nothing" && inner.cpuid.has(feature) && !made.has(kind);
  });
  assertEquals(missing, [], "the guest of every exit does not make them");
  return made;
}

/** What is to stop it, by kind of stop. */
async function stopsOf(c: Configuration): Promise<[Kind, object][]> {
  const everywhere: [Kind, object][] = [
    ["execute", { address: label(c, "registers") }],
    ["watch", { address: 0x2b_0805, length: 2 }],
    ["watch", { address: 0x2b_0100, read: true, write: false }],
    // Within emulated instructions: REP INSB, and a PUSH of what a device gives.
    ["watch", { address: 0x2b_0004, length: 8 }],
    ["watch", { address: 0x27_fffc, length: 4 }],
    ["step", {}],
  ];
  if (c.paging === "bare") return everywhere;
  return [
    ...everywhere,
    ...Array.from(await kindsMade(c), (kind): [Kind, object] => [kind, {}]),
    ["mmio", {}],
    ["mmio", { write: true }],
    ["io", { string: true, write: false }],
    ["io", { string: true, write: true }],
    ["exception", { vector: 1 }],
    ["exception", { vector: 14 }],
    ["cr", { cr: 0, write: true }],
    ["cr", { cr: 4, write: true }],
  ];
}

/** All that the law speaks of, at some positions from here on. */
function runOn(hv: Hypervisor, text: () => string): string[] {
  const [dom] = hv.domains, positions = [1, 1, 3, 60, 2500];
  const look = () => {
    const { instructions, time, exits } = dom.statistics();
    return `${instructions} ${time} ${dom.stateHash()} ${hv.stateHash()} ${text()} ` +
      `${dom.blocked} ${JSON.stringify(Object.entries(exits).sort())}`;
  };
  return [
    look(),
    ...positions.map((n) => {
      advance(dom, n);
      return look();
    }),
  ];
}

/** What a domain prints, since it was last asked. */
function printed(dom: GuestDomain): () => string {
  let text = "";
  dom.console.onOutput((more) => text += more);
  return () => {
    const all = text;
    text = "";
    return all;
  };
}

/** The law at every kind of stop that a configuration has. */
export async function lawAtEveryStop(c: Configuration): Promise<void> {
  await using one = await hostOf(c, everyExit(c.cpu));
  await using fresh = await hostOf(c, everyExit(c.cpu));
  await using never = await hostOf(c, everyExit(c.cpu));
  const text = [one, fresh, never].map(({ dom }) => printed(dom));
  for (const { dom } of [one, never]) advance(dom, 30_000);
  for (const [kind, filter] of await stopsOf(c)) {
    const where = `${kind} ${Object.keys(filter)}`;

    const bring = async (dom: GuestDomain) => {
      if (kind === "step") await dom.vcpus[0].step(7);
      else runTo(dom, kind, filter);
    };
    await bring(one.dom);
    await bring(never.dom);
    text.forEach((t) => t());
    const saved = one.hv.save();
    assertEquals(one.hv.save(), saved, where);
    const first = runOn(one.hv, text[0]);
    one.hv.load(saved);
    assertEquals(one.hv.save(), saved, where);
    text[0]();
    assertEquals(runOn(one.hv, text[0]), first, where);
    fresh.hv.load(saved);
    assertEquals(fresh.hv.save(), saved, where);
    assertEquals(runOn(fresh.hv, text[1]), first, where);
    assertEquals(runOn(never.hv, text[2]), first, where);
  }
}

/** The bytes of a state with another record. */
export function repacked(record: Plain, frames: Uint32Array, data: Uint8Array): Uint8Array {
  const numbers = [...frames], ram = new Uint8Array((numbers.at(-1)! + 1) * 4096);
  numbers.forEach((frame, n) => ram.set(data.subarray(n * 4096, n * 4096 + 4096), frame * 4096));
  try {
    return packState(record, numbers, ram);
  } catch (error) {
    // What no record can hold is no state either.
    if (error instanceof TypeError) return new Uint8Array(8);
    throw error;
  }
}
