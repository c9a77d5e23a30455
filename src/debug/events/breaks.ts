/**
 * The breakpoints of a domain: what may be asked for in it, and what of that is armed.
 *
 * @module
 */
import { exitRows } from "../../hvm/exit_kinds.ts";
import type { Monitor, WatchHit } from "../../xen/monitor.ts";
import type { Watch } from "../../xen/watches.ts";
import { callable, count, flag, options as optionsOf, text } from "../check.ts";
import { everywhere, exitsFor, isExit, type Kind } from "../kinds.ts";
import type { Subject } from "../subject.ts";
import { counted, hex } from "../values.ts";
import { Break, type BreakOptions, type BreakRecord } from "./breakpoint.ts";
import { toFilter, toKind } from "./filters.ts";
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

export class Breaks {
  readonly table: BreakpointTable = new BreakpointTable();
  readonly #watchOf = new WeakMap<Break, Watch>();
  readonly #breakOf = new WeakMap<Watch, Break>();
  #nextId = 1;

  constructor(
    readonly subject: Subject,
    readonly monitor: Monitor,
    /** Asked after each instruction while there are breakpoints of kind "step". */
    readonly stepped: () => boolean,
  ) {}

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
    const b = new Break({
      id: temporary ? 0 : this.#nextId++,
      kind,
      filter: toFilter(kind, filter, subject.symbols),
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

  /** What is armed follows the table. */
  #changed(b: Break): void {
    const { table, monitor } = this;
    table.update(b);
    if (this.subject.gone !== undefined) return;
    if (b.kind === "execute") {
      const address = b.filter.address as bigint;
      monitor.setAddress(address, table.at(address).size > 0);
    } else if (b.kind === "watch") this.#armWatch(b);
    else if (b.kind === "step") this.armStep();
    else {
      const { exits } = table;
      monitor.setExits(exits.size > 0 ? () => exitsFor(exits) : undefined);
    }
  }
  armStep(): void {
    if (this.table.of("step").size > 0) this.monitor.setStep(Infinity, this.stepped);
    else this.monitor.clearStep();
  }
  #armWatch(b: Break): void {
    const known = this.#watchOf.get(b);
    if (known) this.monitor.setWatch(known, false);
    this.#watchOf.delete(b);
    if (!b.enabled) return;
    // What is at a guest-physical address may have changed.
    const watch = this.#newWatch(b);
    this.#watchOf.set(b, watch);
    this.#breakOf.set(watch, b);
    this.monitor.setWatch(watch, true);
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
