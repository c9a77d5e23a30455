/**
 * The last turns of a host's vCPUs, as a list that prints as a table.
 *
 * @module
 */
import type { Host } from "../../xen/host.ts";
import type { PastTurn } from "../../xen/turns.ts";
import { options, whole } from "../check.ts";
import { counted, grouped, hex, INSPECT, tableText, timeText } from "../values.ts";

export type { PastTurn };

/** Which turns: those that are all of what is given. */
export interface ScheduleOptions {
  /** How many of them, the last ones; 40 if not given. */
  readonly last?: number;
  /** Number of the domain. */
  readonly domain?: number;
  /** Number of the vCPU in its domain. */
  readonly vcpu?: number;
  /** Number of the host's processor. */
  readonly processor?: number;
}
const number = whole(0, 2 ** 31);
const CHECK = options({ last: whole(1, 2 ** 31), domain: number, vcpu: number, processor: number });
const SHOWN = 40;

/** What is to be known of a domain whose turns are shown. */
export interface ScheduledDomain {
  readonly id: number;
  readonly name: string;
  /** An address, with its symbol if one is near. */
  place(address: bigint): string;
}

/** Turns, the newest last; prints as a table. */
export class Schedule extends Array<PastTurn> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  #before = "";
  #domains: readonly ScheduledDomain[] = [];

  /** @ignore Given by `schedule()` of the hypervisor. */
  static last(
    { turns: log }: Host,
    domains: readonly ScheduledDomain[],
    which: ScheduleOptions,
  ): Schedule {
    const { last = SHOWN, ...keys } = CHECK(which, "schedule");
    const wanted = Object.entries(keys) as [keyof typeof keys, number | undefined][];
    const all = log.turns.filter((turn) =>
      wanted.every(([key, value]) => value === undefined || turn[key] === value)
    );
    const schedule = Schedule.from(all.slice(-last)) as Schedule;
    schedule.#domains = domains;
    schedule.#before = all.length > last
      ? `the last ${counted(schedule.length, "turn")} of ${grouped(all.length)}:`
      : log.dropped
      ? `${counted(log.dropped, "earlier turn")} not kept`
      : log.since
      ? `a state was loaded at instruction ${grouped(log.since)}: turns before it are not known`
      : "";
    return schedule;
  }

  /** @ignore */
  [INSPECT](): string {
    if (this.length === 0) return this.#before || "no turns yet";
    const several = new Set(this.map(({ domain }) => domain)).size > 1;
    const rows = this.map((turn) => [
      grouped(turn.count).padStart(15),
      timeText(turn.time),
      turn.processor,
      ...several ? [this.#domain(turn.domain)?.name ?? `${turn.domain}`] : [],
      turn.vcpu,
      turn.instructions,
      endText(turn),
      this.#place(turn),
    ]);
    const head = [
      "from instruction",
      "at",
      "processor",
      "domain",
      "vcpu",
      "ran",
      "until",
      "then at",
    ];
    const table = tableText(several ? head : head.filter((word) => word !== "domain"), rows);
    return this.#before ? `${this.#before}\n${table}` : table;
  }
  #domain(id: number): ScheduledDomain | undefined {
    return this.#domains.find((domain) => domain.id === id);
  }
  #place({ domain, rip }: PastTurn): string {
    if (rip === null) return "";
    return this.#domain(domain)?.place(rip) ?? hex(rip, 8);
  }
}

const ENDS: Readonly<Record<PastTurn["end"], string>> = {
  length: "its length",
  wait: "waits",
  device: "waits for a device",
  offline: "INIT",
  wake: "woke another",
  stop: "stop",
  end: "the end",
  "under way": "goes on",
};

function endText({ end, woke, domain }: PastTurn): string {
  if (!woke) return ENDS[end];
  const whose = woke.domain === domain ? "" : ` of domain ${woke.domain}`;
  return `woke vCPU ${woke.vcpu}${whose}`;
}
