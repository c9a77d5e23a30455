/**
 * The breakpoints of a domain: what may be asked for in it, and what of that is armed.
 *
 * @module
 */
import { exitRows } from "../../hvm/exit_kinds.ts";
import type { Monitor, WatchHit } from "../../xen/monitor.ts";
import type { PlatformWatch } from "../../xen/platform_watch.ts";
import type { Watch } from "../../xen/watches.ts";
import { callable, count, flag, options as optionsOf, text } from "../check.ts";
import { everywhere, exitsFor, isExit, isPlatform, type Kind, platformKinds } from "../kinds.ts";
import type { Subject } from "../subject.ts";
import { counted, hex } from "../values.ts";
import { Break, type BreakOptions, type BreakRecord } from "./breakpoint.ts";
import { toFilter, toKind } from "./filters.ts";
import { type AskStore, StoreObserver } from "./store_observer.ts";
import { BreakpointTable } from "./table.ts";

/** @see BreakOptions */
const BREAK_OPTIONS = optionsOf({
  predicate: callable,
  condition: text,
  hits: count,
  once: flag,
  action: callable,
});

/** How a breakpoint is meant, beside what the user says. */
type How = Partial<Pick<BreakRecord, "temporary" | "traces">>;

/** What of a vCPU breakpoints arm. */
export interface Observed {
  readonly monitor: Monitor;
  /** Asked after each instruction while there are breakpoints of kind "step". */
  readonly stepEnds: () => boolean;
}

export class Breaks {
  readonly table: BreakpointTable = new BreakpointTable();
  readonly #watchOf = new WeakMap<Break, Watch>();
  readonly #breakOf = new WeakMap<Watch, Break>();
  readonly #store: StoreObserver;
  #nextId = 1;

  /**
   * @param vcpus what observes each vCPU of the domain
   * @param watch what is asked of what the domain does with others
   * @param ask what is asked of its requests to xenstore
   */
  constructor(
    readonly subject: Subject,
    readonly vcpus: readonly Observed[],
    readonly watch: PlatformWatch,
    ask: AskStore,
  ) {
    this.#store = new StoreObserver(subject, ask);
  }

  add(
    kindName: string,
    filter: object,
    options: BreakOptions,
    { temporary = false, traces = false }: How = {},
  ): Break {
    const { subject } = this;
    subject.mustLive(`"${kindName}"`);
    const kind = toKind(kindName);
    this.#mustHave(kind);
    BREAK_OPTIONS(options, kind);
    const checked = toFilter(kind, filter, subject.symbols);
    this.#mustHaveVcpu(kind, checked.vcpu as number | undefined);
    const b = new Break({
      id: temporary ? 0 : this.#nextId++,
      kind,
      filter: checked,
      options,
      temporary,
      traces,
    }, (b) => this.#changed(b));
    try {
      this.#changed(b);
    } catch (error) {
      b.delete();
      throw error;
    }
    return b;
  }

  /** @throws {Error} for a kind that never comes in such a domain */
  #mustHave(kind: Kind): void {
    const { engine, name } = this.subject;
    if (!engine) {
      if (everywhere.includes(kind)) return;
      throw new Error(
        `domain ${name} runs on the bare processor: nothing leaves it, so there is no ` +
          `"${kind}" to break on; it has: ${everywhere.join(", ")}. A domain of type "hvm" has all`,
      );
    }
    if (isPlatform(kind) && !this.subject.inner.xen) {
      throw new Error(
        `domain ${name} knows nothing of Xen: there is no "${kind}" to break on; one with xen: true has it`,
      );
    }
    if (!isExit(kind)) return;
    const { ops, shadow } = engine;
    if (!ops.exitKinds.includes(kind)) {
      throw new Error(
        `this host's processor has no exits of kind "${kind}": ${ops.name} lacks them`,
      );
    }
    if (exitRows[kind].paging === "shadow" && !shadow) {
      throw new Error(
        `domain ${name} has nested paging: there is no "${kind}" to break on; ` +
          `a domain with paging: "shadow" has it`,
      );
    }
  }

  #mustHaveVcpu(kind: Kind, vcpu: number | undefined): void {
    const { name, vcpus: { length } } = this.subject;
    if (vcpu === undefined || vcpu < length) return;
    const has = length === 1 ? "it has vCPU 0 alone" : `it has 0 to ${length - 1}`;
    throw new RangeError(`${kind} filter vcpu: domain ${name} has no vCPU ${vcpu}; ${has}`);
  }

  /** What is armed follows the table. */
  #changed(b: Break): void {
    const { table, vcpus } = this;
    table.update(b);
    if (this.subject.gone !== undefined) return;
    if (b.kind === "execute") {
      const address = b.filter.address as bigint;
      vcpus.forEach(({ monitor }, n) => monitor.setAddress(address, concern(table.at(address), n)));
    } else if (b.kind === "watch") this.#armWatch(b);
    else if (b.kind === "step") this.armStep();
    else if (isPlatform(b.kind)) this.#armPlatform();
    else {
      const { exits } = table;
      vcpus.forEach(({ monitor }, n) => {
        const wanted = () => exitsFor([...exits].filter((each) => each.concerns(n)));
        monitor.setExits(concern(exits, n) ? wanted : undefined);
      });
    }
  }
  #armPlatform(): void {
    const { table, subject: { inner: { xen } } } = this;
    const wanted = platformKinds.filter((kind) => table.of(kind).size > 0);
    const direct = wanted.some((kind) => kind !== "xenstore");
    if (xen) xen.watch = direct ? this.watch : undefined;
    this.#store.arm(wanted.includes("xenstore"));
  }
  /** The domain is no more: nothing of it is to be seen. */
  disarm(): void {
    this.#store.arm(false);
  }
  /** What is asked after each instruction of a vCPU; undefined: nothing. */
  stepEnds(vcpu: number): (() => boolean) | undefined {
    return concern(this.table.of("step"), vcpu) ? this.vcpus[vcpu].stepEnds : undefined;
  }
  armStep(): void {
    this.vcpus.forEach(({ monitor }, n) => {
      const ends = this.stepEnds(n);
      if (ends) monitor.setStep(Infinity, ends);
      else monitor.clearStep();
    });
  }
  #armWatch(b: Break): void {
    const set = (watch: Watch, on: boolean) =>
      this.vcpus.forEach(({ monitor }, n) => b.concerns(n) && monitor.setWatch(watch, on));
    const known = this.#watchOf.get(b);
    if (known) set(known, false);
    this.#watchOf.delete(b);
    if (!b.enabled) return;
    // What is at a guest-physical address may have changed.
    const watch = this.#newWatch(b);
    this.#watchOf.set(b, watch);
    this.#breakOf.set(watch, b);
    set(watch, true);
  }
  #newWatch(b: Break): Watch {
    const { address, length, read, write, physical } = b.filter as {
      address: bigint;
      length: number;
      read: boolean;
      write: boolean;
      physical?: boolean;
    };
    return physical
      ? { space: "machine", ranges: this.#machineRanges(Number(address), length), read, write }
      : { space: "linear", ranges: [[address, address + BigInt(length)]], read, write };
  }
  #machineRanges(gpa: number, length: number): [bigint, bigint][] {
    const { memory } = this.subject.inner;
    const ranges: [bigint, bigint][] = [];
    for (let at = gpa; at < gpa + length;) {
      const n = Math.min(4096 - at % 4096, gpa + length - at);
      const machine = memory.machineAddress(at);
      if (machine >= 0) ranges.push([BigInt(machine), BigInt(machine + n)]);
      at += n;
    }
    if (ranges.length === 0 || gpa + length > memory.size) {
      throw new RangeError(
        `watch: not all of ${counted(length, "byte")} from guest-physical ${
          hex(gpa)
        } is memory, which ends at ${hex(memory.size)}`,
      );
    }
    return ranges;
  }

  /** Whose watch saw an access, and what its event has. */
  ofHit(hit: WatchHit): { b: Break; fields: Record<string, unknown> } | undefined {
    const b = this.#breakOf.get(hit.watch);
    if (!b) return undefined;
    const fields = {
      address: hit.linear,
      physical: this.subject.guestPhysical(hit.parts[0].machine),
      length: hit.bytes,
      write: hit.write,
      delivery: hit.delivery,
      old: hit.old,
      value: hit.value,
    };
    return { b, fields };
  }
}

/** Whether one of them means what happens to a vCPU. */
function concern(breaks: Iterable<Break>, vcpu: number): boolean {
  for (const b of breaks) if (b.concerns(vcpu)) return true;
  return false;
}
