/**
 * What a vCPU does, as its guest is told (vcpu_runstate_info of Xen's public header vcpu.h): in the
 * domain's own time, when it asks or in a place of its own that is kept up to date.
 */
import { type AbiWidth, offsetOf, View } from "../abi/layout.ts";
import { RUNSTATE, VCPU_RUNSTATE_INFO, XEN_RUNSTATE_UPDATE } from "../abi/xen/vcpu.ts";
import { VMASST_TYPE } from "../abi/xen/xen.ts";
import { amount, flag, record, type Shape, u64, word } from "../machine/shape.ts";
import type { RunstateName } from "./vcpu.ts";
import type { XenVcpu } from "./xen_vcpu.ts";

const STATES = Object.keys(RUNSTATE) as readonly RunstateName[];
const blank = (): Record<RunstateName, number> => ({
  running: 0,
  runnable: 0,
  blocked: 0,
  offline: 0,
});

/** What it does, since when, and how long before that it did what (ns of the domain's own time). */
interface Account {
  state: RunstateName;
  since: number;
  time: Record<RunstateName, number>;
}
function change(account: Account, state: RunstateName, at: number): void {
  if (state === account.state) return;
  account.time[account.state] += at - account.since;
  account.state = state;
  account.since = at;
}

/** What is saved of it. */
export interface SavedRunstate extends Readonly<Account> {
  readonly area: bigint;
  readonly stale: boolean;
}
export const RUNSTATE_SHAPE: Shape = record({
  state: word(...STATES),
  since: amount,
  time: record(Object.fromEntries(STATES.map((name) => [name, amount]))),
  area: u64,
  stale: flag,
});

export class GuestRunstate {
  #account: Account;
  /** Own time since which it stands, and what it does when it goes on. */
  #stands: number | undefined;
  #after: RunstateName;
  /** Linear address of the guest's copy; 0: it wants none. */
  #area = 0n;
  /** The copy is of before: it is written when the vCPU runs. */
  #stale = false;

  constructor(readonly of: XenVcpu, state: RunstateName) {
    this.#after = this.#shown(state);
    this.#stands = this.#now;
    this.#account = { state: this.#after, since: this.#now, time: blank() };
  }
  get #now(): number {
    return this.of.xen.domain.now;
  }
  /** Where time stands while others run, nobody waits for a processor. */
  #shown(state: RunstateName): RunstateName {
    return state === "runnable" && this.of.xen.domain.hasOwnTime ? "running" : state;
  }

  /** The vCPU does something else now. */
  enter(state: RunstateName): void {
    const next = this.#shown(state), left = this.#account.state;
    if (this.#stands !== undefined) this.#after = next;
    else if (next !== left) {
      change(this.#account, next, this.#now);
      // While it still is on the processor; else as soon as it is there.
      if (left === "running") this.#write();
      else this.#stale = true;
    }
  }
  /** Its domain is paused. */
  stand(): void {
    if (this.#stands !== undefined) return;
    this.#stands = this.#now;
    this.#after = this.#account.state;
  }
  /** It goes on. */
  goOn(): void {
    const { since } = this.#account;
    this.#goOn(this.#account);
    this.#stale ||= this.#account.since !== since;
    this.#stands = undefined;
  }
  /** A pause in which no time has passed is none, and one that waits waits through it. */
  #goOn(account: Account): void {
    const from = this.#stands, now = this.#now;
    if (from === undefined) return;
    const stood = now > from && account.state !== "blocked" && account.state !== "offline";
    if (stood) change(account, "offline", from);
    change(account, this.#after, now);
  }

  /** As it is at this moment, for a guest of a width. */
  now(width: AbiWidth): Uint8Array {
    const { state, since, time } = this.#account;
    const past = Math.max(0, this.#now - since);
    return this.#info(width, { ...time, [state]: time[state] + past }).raw;
  }
  #info(width: AbiWidth, time: Account["time"] = this.#account.time) {
    const view = new View(VCPU_RUNSTATE_INFO, width), { state, since } = this.#account;
    view.setAll({ state: RUNSTATE[state], state_entry_time: since });
    for (const name of STATES) view.set("time", time[name], RUNSTATE[name]);
    return view;
  }

  /** The guest wants a copy at a linear address, written now and then kept; 0: it wants none. */
  register(area: bigint, width: AbiWidth): void {
    const { handles } = this.of;
    this.#area = area;
    this.#stale = false;
    handles.begin();
    // What cannot be written is not: no error.
    if (area) handles.write(area, this.now(width));
  }
  /** It is on the processor. */
  runs(): void {
    if (this.#stale) this.#write();
  }
  /**
   * Writes the copy, as wide as shared_info is. If the guest has asked for that, XEN_RUNSTATE_UPDATE is
   * set in it meanwhile, for those who read it on other processors.
   */
  #write(): void {
    this.#stale = false;
    if (!this.#area) return;
    const { xen: { width, assists }, handles } = this.of, view = this.#info(width);
    handles.begin();
    if (!assists.has(VMASST_TYPE.runstate_update_flag)) {
      handles.write(this.#area, view.raw);
      return;
    }
    const top = offsetOf(VCPU_RUNSTATE_INFO, "state_entry_time", width) + 7;
    const since = view.get("state_entry_time");
    const mark = () => handles.write(this.#area + BigInt(top), view.raw.subarray(top, top + 1));
    view.set("state_entry_time", since | XEN_RUNSTATE_UPDATE);
    mark();
    handles.write(this.#area, view.raw);
    view.set("state_entry_time", since);
    mark();
  }

  save(): SavedRunstate {
    const { state, since, time } = this.#account, account = { state, since, time: { ...time } };
    // Whether it is paused is its domain's to say.
    this.#goOn(account);
    return { ...account, area: this.#area, stale: this.#stale || account.since !== since };
  }
  load({ state, since, time, area, stale }: SavedRunstate): void {
    this.#account = { state, since, time: { ...time } };
    this.#after = state;
    this.#area = area;
    this.#stale = stale;
  }
  /** Its domain's clock was loaded, too. */
  loaded(): void {
    if (this.#stands !== undefined) this.#stands = this.#now;
  }
}
