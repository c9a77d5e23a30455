/**
 * Who ran when: the last turns of a host's vCPUs, for those who look at a schedule. A turn in this log is
 * all that a vCPU ran before another did, or before it waited, in however many parts. The log is no state:
 * nothing goes by it, and a host that was put into a saved state begins another.
 */
import type { Vcpu } from "./vcpu.ts";

/** Why a turn is over. */
export type TurnEnd =
  /** The length that the seed had picked is used up, or what a cap allows. */
  | "length"
  /** It waits for an interrupt: HLT. */
  | "wait"
  /** It waits for the answer of a device outside. */
  | "device"
  /** INIT has come: it waits to be started up. */
  | "offline"
  /** It has woken another vCPU, which comes first. */
  | "wake"
  /** The domain stands at a stop, or was paused, or another runs alone. */
  | "stop"
  /** The domain ended. */
  | "end"
  /** It is not over. */
  | "under way";

/** A turn that was; the last one may be under way. */
export interface PastTurn {
  /** Number of the host's processor. */
  readonly processor: number;
  /** Number of the vCPU's domain. */
  readonly domain: number;
  /** Number of the vCPU in it. */
  readonly vcpu: number;
  /** Instructions that the host had retired when it began. */
  readonly count: number;
  /** Machine time there in nanoseconds, as its processor has it. */
  readonly time: number;
  /** Instructions retired in it. */
  readonly instructions: number;
  /** Why it is over. */
  readonly end: TurnEnd;
  /** Number of the vCPU that was woken, and of its domain, where that ended it; else null. */
  readonly woke: { readonly domain: number; readonly vcpu: number } | null;
  /** Linear address of the instruction after it; null if its domain is no more. */
  readonly rip: bigint | null;
}

/** Where a part of a turn began. */
export interface TurnBegin {
  readonly count: number;
  readonly time: number;
}

/** So many are kept. */
export const TURNS_KEPT = 4096;

/** Behind these the same vCPU goes on with another turn. */
const FINAL: ReadonlySet<TurnEnd> = new Set(["wait", "device", "offline", "end"]);

export class TurnLog {
  /** A ring: the one of number n is at n modulo its size. */
  readonly #kept: PastTurn[] = [];
  #total = 0;
  /** Instructions of the host before which nothing is known. */
  #since = 0;

  /** All that are kept, the oldest first. */
  get turns(): readonly PastTurn[] {
    const at = this.#total % TURNS_KEPT;
    return this.#total <= TURNS_KEPT
      ? this.#kept.slice(0, this.#total)
      : [...this.#kept.slice(at), ...this.#kept.slice(0, at)];
  }
  /** How many there were before those. */
  get dropped(): number {
    return Math.max(0, this.#total - TURNS_KEPT);
  }
  /** Instructions that the host had retired when the log began. */
  get since(): number {
    return this.#since;
  }
  /** The host stands elsewhere, at so many instructions: what was before is not what led there. */
  beginAt(count: number): void {
    this.#total = this.#kept.length = 0;
    this.#since = count;
  }

  /** A vCPU has run a part of a turn, up to `count` instructions of the host. */
  ran(
    { id, domain, processor, engine }: Vcpu,
    began: TurnBegin,
    count: number,
    end: TurnEnd,
    woke: Vcpu | undefined,
  ): void {
    const last = this.#kept[(this.#total - 1) % TURNS_KEPT] as PastTurn | undefined;
    const same = last && last.vcpu === id && last.domain === domain.id && !FINAL.has(last.end);
    if (!same && end === "under way" && count === began.count) return;
    const first = same ? last : began;
    this.#kept[(same ? this.#total - 1 : this.#total++) % TURNS_KEPT] = {
      processor: processor.id,
      domain: domain.id,
      vcpu: id,
      count: first.count,
      time: first.time,
      instructions: count - first.count,
      end,
      woke: woke && end === "wake" ? { domain: woke.domain.id, vcpu: woke.id } : null,
      rip: domain.state.kind === "destroyed" ? null : engine.linearIp,
    };
  }
}
