/** A vCPU in a hardware virtual machine: entries, exits, interrupts, and what its exits want. */
import { VECTOR } from "../abi/x86/vectors.ts";
import type { Exit } from "../hvm/exit.ts";
import { type ExitKind, type ExitRow, exitRows, interceptsOf } from "../hvm/exit_kinds.ts";
import { exitRecord, exitShape } from "../hvm/exit_state.ts";
import type {
  EnterOptions,
  HvmCpu,
  HvmOps,
  HvmVcpu,
  Intercepts,
  RegisterName,
  Stopped,
} from "../hvm/ops.ts";
import { HYPERCALL_INSTRUCTIONS } from "../hvm/vendors.ts";
import { CPUID_APIC, CPUID_OSXSAVE } from "../abi/x86/cpuid.ts";
import { CR4, RFLAGS } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import { oneMoreNmi } from "../machine/apic/messages.ts";
import type { CpuHooks } from "../machine/host.ts";
import type { Fault } from "../machine/events.ts";
import { SERVICE } from "../machine/linkage.ts";
import type { Plain } from "../machine/record.ts";
import {
  amount,
  checkOrder,
  flag,
  list,
  orNull,
  record,
  tuple,
  u32,
  u64,
  whole,
} from "../machine/shape.ts";
import { CPU, V } from "../machine/state.ts";
import type { StateRegister } from "../machine/state_block.ts";
import { XEN_CPUID_FIRST_LEAF, XEN_CPUID_LEAF_OF } from "../abi/xen/cpuid.ts";
import type { Cpuid, CpuidResult } from "../machine/cpuid.ts";
import { noteQuiet, watchQuiet } from "./coprocessor.ts";
import { BLOCKED, BUDGET, Engine, OFFLINE, type PartEnd, SEEN, type Verdict } from "./engine.ts";
import { Call } from "./call.ts";
import { handleExit } from "./exits.ts";
import type { HostInterrupts } from "./irq.ts";
import { IoreqSlot } from "./ioreq.ts";
import type { P2M } from "./p2m.ts";
import type { InterruptPort, Platform } from "./platform.ts";
import type { Shadow } from "./shadow.ts";
import { initialize, startUp } from "./start_up.ts";
import type { Vcpu } from "./vcpu.ts";

/**
 * What waits to be handled when the guest goes on: an exit, or an access of an instruction that the
 * vendor's entry executes by itself, and that it comes to again.
 */
export type Pending = Exit | "unanswered";

const rows = Object.entries(exitRows) as [ExitKind, ExitRow][];
const ofRows = (are: (row: ExitRow) => boolean): Intercepts =>
  interceptsOf(rows.filter(([, row]) => are(row)).map(([kind]) => [kind, {}]));

/** What this hypervisor wants to see of every guest. */
const ALWAYS: Intercepts = ofRows(({ always }) => always === true);

/** What nobody but an observer asks for, as it is when none does. */
const UNOBSERVED: Intercepts = Object.fromEntries(
  Object.entries(ofRows(({ always }) => !always)).map(([name, value]) => [
    name,
    typeof value === "boolean" ? false : typeof value === "number" ? 0 : value,
  ]),
);

/** Instructions that do not exist where CPUID does not show them. */
const FEATURES = rows.filter(([, { intercept, feature, always }]) =>
  feature !== undefined && intercept === "flag" && !always
);

interface HvmState {
  /** It looks what is due, and what interrupts there are, before it goes on. */
  readonly changed: boolean;
  /** An interrupt window has been asked for. */
  readonly window: boolean;
  /** Exits in a row with no instruction between them, and the vCPU's count there. */
  readonly fruitless: number;
  readonly fruitlessAt: number;
  readonly msrs: [number: number, value: bigint][];
  /** The exit that is to be handled when the guest goes on, and the instruction pointer there. */
  readonly pending: Plain;
  readonly pendingAt: bigint;
}

/** Name of its block, in its vCPU's part. */
export const HVM_BLOCK = "hvm";

/** Where a guest that knows Xen finds which of its vCPUs it is on. */
const XEN_HVM_LEAF = XEN_CPUID_FIRST_LEAF + XEN_CPUID_LEAF_OF.hvm;

export class HvmEngine extends Engine {
  readonly ioreq: IoreqSlot;
  #standsFor: unknown;
  /** Its hypercalls, if its domain knows Xen. */
  call: Call | undefined;
  /** What waits: for a debugger, or for a device that answers later. */
  pending: Pending | undefined;
  /** The instruction pointer there. */
  #pendingAt = 0n;
  /** The last exit, for `why()`. */
  last: Exit | undefined;
  /** The last exception of the guest while it is off the processor; counted from then, so not above 0. */
  #fault: Fault | undefined;
  readonly #cpuid = new Map<number, CpuidResult>();
  /** MSRs that are the hypervisor's to remember. */
  readonly msrs: Map<number, bigint> = new Map();
  /** Interrupt requests or deadlines may have changed since the last entry. */
  changed = true;
  /** Shadow paging, in place of nested. */
  shadow: Shadow | undefined;
  #window = false;
  /** Exits in a row with no instruction between them, and the vCPU's count there. */
  #fruitless = 0;
  #fruitlessAt = -1;
  /** Exits that an observer wants to see. */
  #observed: Intercepts | undefined;
  /** The hardware has others than it is to have when the vCPU is on the processor. */
  #outdated = false;
  /** Made once: entries are hot. */
  readonly #entry: { budget: number; pageFault?: EnterOptions["pageFault"] } = { budget: 0 };
  /** Machine time at which the turn under way is over. */
  #until = 0;
  /** What the hardware's time-stamp offset was made from; NaN: to be made anew. */
  #timeOffset = NaN;

  constructor(
    vcpu: Vcpu,
    readonly ops: HvmOps,
    /** Its control structure, and what is kept beside it. */
    readonly hvm: HvmVcpu,
    readonly p2m: P2M,
    readonly interrupts: HostInterrupts,
    readonly cpuid: Cpuid,
  ) {
    super(vcpu);
    const { domain } = vcpu;
    this.ioreq = new IoreqSlot(domain.servers, () => this.platform, vcpu.id, {
      answered: () => {
        this.changed = true;
        domain.host.wake();
      },
      failed: (error) => domain.fail(error),
      dropped: (text) => domain.note(text),
    });
    cpuid.onChange.add(() => this.cpuidChanged());
  }

  /** The processor it runs on. */
  get on(): HvmCpu {
    return this.vcpu.processor.hvm!;
  }
  /** What of the motherboard is the vCPU's. */
  get port(): InterruptPort {
    return this.vcpu.port!;
  }
  /** The motherboard, which such a guest always has. */
  get platform(): Platform {
    return this.domain.platform!;
  }
  /** Exits that the hypervisor wants whatever an observer asks for. */
  get needs(): Intercepts {
    // The task priority is the local APIC's; what CPUID does not show does not exist.
    const { cpuid, ops } = this;
    return {
      crRead: 1 << 8,
      crWrite: 1 << 8,
      cr4Bits: ~cpuid.cr4Valid,
      exceptions: this.foreign || this.#hidesVendor ? 1 << VECTOR.UD : 0,
      ...Object.fromEntries(FEATURES.map(([kind, { feature }]) => [kind, !cpuid.has(feature!)])),
      absent: ops.takesAway.filter((feature) => !cpuid.has(feature)),
    };
  }
  /** CPUID shows the other vendor: some instructions that software then expects are not there. */
  get foreign(): boolean {
    const { vendor } = this.cpuid;
    return vendor !== undefined && vendor !== this.on.cpu.model;
  }
  get linearIp(): bigint {
    const { ops, hvm } = this, rip = ops.getRegister(hvm, "rip");
    const { base } = ops.getSegment(hvm, "cs");
    return base === 0n || this.ops.in64BitMode(this.hvm) ? rip : base + rip & 0xffff_ffffn;
  }
  /** The last exception that the guest was given; its count is that from now, 0 or below. */
  get lastFault(): Fault | undefined {
    if (!this.vcpu.loaded) return this.#fault;
    const { cpu } = this.on;
    return cpu.lastFault && { ...cpu.lastFault, count: cpu.lastFault.count - cpu.count };
  }
  /** Asks for the exits that are always wanted: once, when the vCPU was made. */
  start(): void {
    const { domain: { xen }, id } = this.vcpu;
    if (xen) this.call = new Call(this, xen, xen.vcpus[id]);
    this.shadow?.lackPages(this.cpuid.pagesAbsent);
    this.#setIntercepts(ALWAYS);
  }
  /** Asks for the exits that those who look on want to see besides. */
  observe(): void {
    const wishes = this.hooks.map((hook) => hook.exits).filter((exits) => exits !== undefined);
    if (wishes.length === 0 && this.#observed === undefined) return;
    // Those that always leave stay as they are.
    const more = Object.entries(interceptsOf(wishes.flat())).filter(([name]) => !(name in ALWAYS));
    this.#observed = wishes.length > 0 ? Object.fromEntries(more) : undefined;
    if (this.vcpu.loaded) this.#showIntercepts(true);
    else this.#outdated = true;
  }
  /** An observer's are in the hardware, or they are not. */
  #showIntercepts(observed: boolean): void {
    this.#outdated = !observed && this.#observed !== undefined;
    this.#setIntercepts({ ...UNOBSERVED, ...(observed ? this.#observed : undefined) });
  }
  #setIntercepts(wanted: Intercepts): void {
    const { needs } = this;
    const both = { ...needs, ...wanted } as Record<string, unknown>;
    for (const [name, bits] of Object.entries(needs)) {
      const asked = (wanted as Bits)[name];
      if (typeof bits === "number") both[name] = bits | Number(asked ?? 0);
      else if (typeof bits === "boolean") both[name] = bits || asked === true;
    }
    this.ops.setIntercepts(this.hvm, both);
  }

  protected execute(budget: number): PartEnd {
    const { cpu } = this.on;
    // A turn is time: port accesses take more of it than instructions.
    this.#until = cpu.now + budget;
    watchQuiet(cpu, this.platform);
    this.vcpu.upcall?.runs();
    // Others have run since: their time is not this guest's.
    if (this.domain.timeOffset !== this.#timeOffset) this.setTsc();
    this.#entry.pageFault = this.shadow?.pageFault;
    let exit = this.#takePending();
    if (!exit) this.ioreq.abandon("the guest went on without that access");
    // The vendor's own emulation of an instruction; it leaves there again.
    else if (exit === "unanswered") exit = undefined;
    for (;;) {
      const next: Exit | PartEnd | undefined = exit ? this.#handle(exit) : this.#enter();
      exit = undefined;
      if (this.#standsFor !== undefined && (!next || isEnd(next))) return this.#stands(next);
      if (!next) continue;
      if (isEnd(next)) return next;
      const verdict = this.#show(next);
      if (verdict?.kind === "stop") {
        this.#keep(next);
        return verdict;
      }
      if (!verdict || !this.carryOut(next, verdict)) exit = next;
    }
  }

  /** Somebody wants the domain to stand still when what is under way is done, for what has happened in it. */
  standFor(stop: unknown): void {
    this.#standsFor = stop;
  }
  #stands(end: PartEnd | undefined): PartEnd {
    const stop = this.#standsFor;
    this.#standsFor = undefined;
    return end?.kind === "end" ? end : { kind: "stop", stop, blocked: end?.kind === "blocked" };
  }

  /** Enters the guest: its exit, the end of the slice, or undefined to enter again. */
  #enter(): Exit | PartEnd | undefined {
    const { cpu } = this.on, { shadow } = this;
    if (this.#turnIsOver()) return BUDGET;
    if (this.changed && this.#initialized()) return OFFLINE;
    if (this.changed) {
      this.#beforeEntry();
      // It may have woken another vCPU, or ended the domain.
      if (cpu.now >= this.vcpu.processor.until || this.domain.ending) return BUDGET;
      if (this.#standsFor !== undefined) return BUDGET;
    }
    shadow?.sync();
    this.#entry.budget = this.#until - cpu.now;
    const raw = this.ops.enter(this.hvm, this.#entry);
    if (typeof raw === "string") return this.#stopped(raw);
    const exit = shadow ? shadow.refine(raw) : raw;
    if (!exit) cpu.idle += LIVELOCK;
    return exit ? this.#otherHypercall(exit) ?? exit : BUDGET;
  }
  /** The other vendor's hypercall instruction, which is undefined here, of a guest that cannot know that. */
  #otherHypercall(exit: Exit): Exit | undefined {
    if (exit.kind !== "exception" || exit.event.vector !== VECTOR.UD || !this.#hidesVendor) return;
    const { memory } = this.call!, bytes = new Uint8Array(HYPERCALL_LENGTH);
    memory.begin();
    const isCall = memory.read(this.linearIp, bytes) &&
      HYPERCALL_INSTRUCTIONS.some((one) => one.every((b, n) => b === bytes[n]));
    return isCall ? { kind: "hypercall", length: HYPERCALL_LENGTH } : undefined;
  }
  /** A guest that knows Xen does not find the vendor of its processor in CPUID, but another or none. */
  get #hidesVendor(): boolean {
    return this.call !== undefined && this.cpuid.vendor !== this.on.cpu.model;
  }

  #turnIsOver(): boolean {
    const { domain, on: { cpu }, vcpu: { processor } } = this;
    return cpu.now >= Math.min(this.#until, processor.until) || cpu.machine.due() ||
      domain.ending !== undefined ||
      !domain.runs;
  }

  /**
   * Whether an INS or OUTS goes on with its next iteration, as Xen's has a `count` of them in one
   * ioreq_t: where the guest, entered in between, would leave for it at once, and nobody looked.
   */
  #repeats(): boolean {
    const { domain, on: { cpu } } = this;
    const due = this.changed || domain.deadline <= domain.now || this.nmiPending ||
      // A window opens by IF, or when the first iteration has ended a shadow.
      (this.#window && (cpu.i32[CPU.rflags >> 2] & Number(IF)) !== 0);
    if (due || this.hooks.length > 0 || this.ioreq.any || this.#turnIsOver()) return false;
    // How many there are at a time depends on the host's clock: each counts as the exit it stands for.
    this.#countExit("io");
    return true;
  }

  /** The guest was stopped and did not leave. */
  #stopped(why: Stopped): PartEnd | undefined {
    switch (why) {
      case "budget":
        // A shadowed guest may have left real mode before its budget was used up.
        return this.shadow ? undefined : BUDGET;
      case "stopped":
        return BUDGET;
      case "breakpoint":
      case "watch":
        return SEEN[why];
      case "unanswered":
        this.#keep(why);
        return BLOCKED;
      case "halt":
        // An HLT that the processor executed itself: it is waited for here all the same.
        this.ops.setActivity(this.hvm, "active");
        return this.awake ? BUDGET : BLOCKED;
      default:
        throw new Error(`the processor stopped in a guest: ${why}`);
    }
  }

  /** Counts an exit and shows it to all who look on: the strongest of their verdicts. */
  #show(exit: Exit): Verdict | undefined {
    this.last = exit;
    this.#countExit(exit.kind);
    if (this.hooks.length === 0) return undefined;
    const verdicts = [...this.hooks].map((hook) => hook.exit(exit));
    return verdicts.find((it) => it?.kind === "stop") ??
      verdicts.find((it) => it && it.kind !== "continue");
  }
  /** True if the exit is dealt with so; false if the hypervisor is to handle it as always. */
  carryOut(exit: Exit, verdict: Verdict): boolean {
    const { ops, hvm } = this;
    switch (verdict.kind) {
      case "skip":
        ops.advance(hvm, verdict.length ?? exit.length);
        return true;
      case "inject":
        ops.inject(hvm, verdict.event);
        return true;
      case "reply":
        for (const [name, value] of Object.entries(verdict.registers)) {
          ops.setRegister(hvm, name as RegisterName, value);
        }
        ops.advance(hvm, exit.length);
        return true;
      default:
        return false;
    }
  }
  #countExit(kind: Exit["kind"]): void {
    const { exits } = this.vcpu;
    exits[kind] = (exits[kind] ?? 0) + 1;
  }

  /** Handles an exit: the end of the slice, the exit of an emulated instruction, undefined to go on. */
  #handle(exit: Exit): Exit | PartEnd | undefined {
    // Before an end of interrupt, which would find the line as it was.
    this.call?.vcpu.look();
    this.ioreq.begin();
    const handled = handleExit(this, exit);
    if (handled === "again" || handled === SEEN.breakpoint) this.#keep(exit);
    else this.ioreq.done();
    if (handled === "again") return BLOCKED;
    return handled ?? (this.#livelocked() ? BUDGET : undefined);
  }
  #keep(pending: Pending): void {
    this.pending = pending;
    this.#pendingAt = this.ops.getRegister(this.hvm, "rip");
  }
  /** The exit to handle first; none if it was an instruction's, and another is to be executed now. */
  #takePending(): Pending | undefined {
    const { pending } = this;
    this.pending = undefined;
    if (!pending || pending === "unanswered" || pending.vectoring) return pending;
    const instruction = pending.length > 0 || exitRows[pending.kind].access;
    const moved = instruction && this.ops.getRegister(this.hvm, "rip") !== this.#pendingAt;
    return moved ? undefined : pending;
  }

  /** A guest that leaves for ever without an instruction between: time passes, others get their turn. */
  #livelocked(): boolean {
    const { count } = this.vcpu;
    if (count !== this.#fruitlessAt) {
      this.#fruitlessAt = count;
      this.#fruitless = 0;
    } else if (++this.#fruitless >= LIVELOCK) {
      this.#fruitless = 0;
      this.on.cpu.idle += LIVELOCK;
      return true;
    }
    return false;
  }

  /** The task priority changed by another way than CR8. */
  priority(cr8: number): void {
    // Another vCPU's INIT does that while it runs: it is taken before this one runs again.
    const { loaded, processor } = this.vcpu;
    if (loaded || !processor.running) this.ops.setCr(this.hvm, 8, BigInt(cr8));
  }
  /** INIT has come; a start-up that comes to a vCPU that runs is ignored. */
  #initialized(): boolean {
    const { signals } = this.port;
    if (signals.init) {
      signals.init = false;
      this.#initialize();
      return true;
    }
    signals.startup = -1;
    return false;
  }
  #initialize(): void {
    initialize(this.ops, this.hvm, this.cpuidLeaf(1, 0).eax);
    this.pending = undefined;
    this.ioreq.abandon("the vCPU was initialized");
    this.#window = false;
    this.vcpu.upcall?.begins(false);
  }
  startUp(): boolean {
    const { port: { signals }, vcpu: { upcall } } = this;
    // A further INIT: it waits as it did, but one that Xen took offline loses what it has been.
    if (signals.init && upcall?.initialised) this.#initialize();
    signals.init = false;
    const { startup } = signals;
    signals.startup = -1;
    this.changed = true;
    // One that has begun is no more to be started up, only to come up.
    if (upcall?.initialised) return upcall.comesUp();
    if (startup < 0) return false;
    startUp(this.ops, this.hvm, startup);
    upcall?.begins(true);
    return true;
  }
  /** It is given other registers than those of INIT to begin with, and the time of the first. */
  begin(registers: (engine: this) => void): void {
    registers(this);
    const { upcall, domain: { vcpus: [first] } } = this.vcpu;
    this.msrs.set(MSR.TSC_ADJUST, BigInt.asUintN(64, first.engine.tsc - BigInt(this.domain.now)));
    this.setTsc();
    this.port.tscChanged();
    upcall?.begins(true);
    upcall?.updateTime();
  }

  /** An NMI waits to be injected. */
  get nmiPending(): boolean {
    return this.port.signals.nmi > 0;
  }

  /** What decides how the guest goes on, beside its registers, memory and platform. */
  register(blocks: StateRegister): void {
    const { shadow, hvm, ops } = this;
    blocks.register<HvmState>({
      name: HVM_BLOCK,
      version: 3,
      configuration: () => ({
        paging: shadow ? "shadow" : "hap",
        "shadow frames": shadow?.pool.slots ?? 0,
        "control structure": hvm.control,
        "save area": hvm.area,
      }),
      shape: record({
        changed: flag,
        window: flag,
        fruitless: amount,
        fruitlessAt: whole(-1, 2 ** 52),
        msrs: list(tuple(u32, u64)),
        pending: orNull(exitShape(ops.exitKinds)),
        pendingAt: u64,
      }),
      save: () => ({
        changed: this.changed,
        window: this.#window,
        fruitless: this.#fruitless,
        fruitlessAt: this.#fruitlessAt,
        msrs: [...this.msrs].sort((a, b) => a[0] - b[0]),
        pending: this.pending ? exitRecord(this.pending) : null,
        pendingAt: this.pending ? this.#pendingAt : 0n,
      }),
      check: ({ msrs }) => checkOrder("hvm: msrs", msrs),
      load: (s) => {
        this.#window = s.window;
        this.#fruitless = s.fruitless;
        this.#fruitlessAt = s.fruitlessAt;
        this.msrs.clear();
        for (const [number, value] of s.msrs) this.msrs.set(number, value);
        this.pending = s.pending as Pending | null ?? undefined;
        this.last = this.pending === "unanswered" ? undefined : this.pending;
        this.#fault = undefined;
        this.#pendingAt = s.pendingAt;
        this.#timeOffset = NaN;
        this.changed = s.changed;
      },
    });
    this.ioreq.register(blocks);
  }

  /** Timers and interrupts of the guest, as they stand now. */
  #beforeEntry(): void {
    const { domain } = this;
    if (domain.deadline <= domain.now) domain.run(domain.now);
    if (this.nmiPending) this.#injectNmi();
    this.#offerInterrupt();
    this.interrupts.setTimer(domain.deadline - domain.timeOffset);
    // What all this has changed needs no second look, which would come wherever the host cuts a turn.
    this.changed = this.port.signals.init;
  }
  #offerInterrupt(): void {
    if (!this.interruptPending) {
      if (this.#window) this.#setWindow(false);
      return;
    }
    // The guest leaves when it opens: whoever looks here before that changes nothing.
    if (this.#window) return;
    if (!this.ops.canInterrupt(this.hvm)) return this.#setWindow(true);
    const upcall = this.vcpu.upcall?.vector ?? -1;
    const vector = upcall >= 0 ? upcall : this.port.acknowledge();
    if (vector >= 0) {
      this.ops.inject(this.hvm, { type: "external-interrupt", vector });
      if (this.vcpu.upcall) this.domain.xen?.injected(this.vcpu.upcall, vector);
    }
    // Another may wait behind it.
    if (this.interruptPending) this.#setWindow(true);
  }
  /** The guest has left because it can be interrupted. */
  windowOpen(): void {
    this.#setWindow(false);
    this.changed = true;
  }

  /** Its deadlines may be those of others' doing, and the host's timer is set to theirs. */
  override othersRan(): void {
    this.changed = true;
  }

  override poke(): void {
    this.changed = true;
    super.poke();
  }

  /** The guest's NMI line is asserted; it is injected as soon as no other NMI is being handled. */
  nmi(): void {
    const { signals } = this.port;
    signals.nmi = oneMoreNmi(signals.nmi, false);
    this.changed = true;
  }

  #injectNmi(): void {
    const { sti, movSs, nmi } = this.ops.interruptShadow(this.hvm);
    const { port: { signals } } = this, event = this.ops.pendingEvent(this.hvm);
    if (nmi || event?.type === "nmi") signals.nmi = oneMoreNmi(0, true);
    if (!sti && !movSs && !nmi && !event) {
      this.ops.inject(this.hvm, { type: "nmi", vector: 2 });
      signals.nmi--;
    }
    this.ops.setNmiWindow(this.hvm, signals.nmi > 0);
  }

  #setWindow(on: boolean): void {
    this.#window = on;
    this.ops.setInterruptWindow(this.hvm, on);
  }

  /** CPUID of this domain, looked up once per leaf; what follows the processor's state is put in. */
  cpuidLeaf(leaf: number, subleaf: number): CpuidResult {
    const key = (leaf >>> 0) * 256 + (subleaf & 255);
    let result = this.#cpuid.get(key);
    if (!result) {
      if (this.#cpuid.size > 256) this.#cpuid.clear();
      result = this.cpuid.read(leaf, subleaf, { apicId: this.port.id });
      if (this.call && leaf >>> 0 === XEN_HVM_LEAF && subleaf === 0) {
        result = { ...result, ebx: this.vcpu.id };
      }
      this.#cpuid.set(key, result);
    }
    if (leaf !== 1 && leaf >>> 0 !== 0x8000_0001) return result;
    let { ecx, edx } = result;
    const on = this.port.readMsr(MSR.APIC_BASE) ?? 0n;
    if (!(on & 0x800n)) edx = (edx & ~CPUID_APIC) >>> 0;
    if (leaf !== 1) return { ...result, edx };
    if (this.ops.getCr(this.hvm, 4) & BigInt(CR4.OSXSAVE)) ecx = (ecx | CPUID_OSXSAVE) >>> 0;
    return { ...result, ecx, edx };
  }
  /** The domain's CPUID was edited. */
  cpuidChanged(): void {
    this.#cpuid.clear();
    const { loaded, domain } = this.vcpu;
    if (domain.state.kind === "destroyed") return;
    this.shadow?.lackPages(this.cpuid.pagesAbsent);
    this.#showIntercepts(loaded);
    if (loaded) this.cpuid.showMisaligned(this.on.cpu.i32);
  }

  /** The host's timer rang. */
  timer(): void {
    this.changed = true;
  }

  override get unfinished(): boolean {
    return this.pending !== undefined;
  }
  get waiting(): boolean {
    return this.pending !== undefined && this.ioreq.waiting;
  }
  runnable(): boolean {
    if (this.port.signals.init) return true;
    if (this.pending) return !this.ioreq.waiting;
    return this.awake || (this.vcpu.upcall?.ready ?? false);
  }
  get interruptible(): boolean {
    return this.waitsForEvent || this.#interruptsOn;
  }
  get #interruptsOn(): boolean {
    return (this.ops.getRegister(this.hvm, "rflags") & IF) !== 0n;
  }
  /** What ends HLT is due: an interrupt that IF lets in, or an NMI while none is being handled. */
  get awake(): boolean {
    if (this.nmiPending && !this.ops.interruptShadow(this.hvm).nmi) return true;
    return this.interruptPending && this.#interruptsOn;
  }
  /** It waits by a hypercall, whatever its IF. */
  get waitsForEvent(): boolean {
    return this.vcpu.upcall?.waitsForEvent ?? false;
  }
  /** An upcall, or the interrupt controllers, ask for service. */
  get interruptPending(): boolean {
    return (this.vcpu.upcall?.vector ?? -1) >= 0 || this.port.interruptPending();
  }
  protected attach(): void {
    this.ops.load(this.hvm);
    const { cpu } = this.on, kept = this.#fault;
    cpu.raised = undefined;
    cpu.lastFault = kept && { ...kept, count: kept.count + cpu.count };
    if (this.#outdated) this.#showIntercepts(true);
    Object.assign(this.on.cpu.hooks, this.#hooks);
    this.cpuid.showMisaligned(this.on.cpu.i32);
  }
  protected detach(): void {
    this.on.cpu.i32[V.noMisaligned >> 2] = 0;
    this.#fault = this.lastFault;
    this.ops.unload(this.on);
  }
  /**
   * Drops what is derived from the guest and kept in memory, and what an observer asked for: before
   * all of memory is looked at or changed. The vCPU is off the processor.
   */
  quiesce(): void {
    // When that was found out is nobody's.
    this.call?.vcpu.look();
    this.shadow?.drop();
    this.#showIntercepts(false);
    this.ops.unload(this.on);
  }

  /** What the emulated instructions of this domain reach. */
  readonly #hooks: Pick<
    CpuHooks,
    | "emulatedRead"
    | "emulatedWrite"
    | "emulatedIoRead"
    | "emulatedIoWrite"
    | "emulatedIoRepeats"
    | "service"
  > = {
    emulatedRead: (address, bytes) => this.ioreq.read("copy", address, bytes),
    emulatedWrite: (address, bytes, value) => this.ioreq.write("copy", address, bytes, value),
    emulatedIoRead: (port, bytes) => this.ioreq.read("pio", port, bytes),
    emulatedIoWrite: (port, bytes, value) => this.ioreq.write("pio", port, bytes, value),
    emulatedIoRepeats: () => this.#repeats(),
    service: (number) => {
      const { domain, on } = this;
      if (number === SERVICE.random) return domain.host.world.randomFor(domain);
      if (number === SERVICE.coprocessorQuiet) noteQuiet(on.cpu, this.platform);
      return 0;
    },
  };

  /** What the guest's time-stamp counter reads now. */
  get tsc(): bigint {
    return BigInt(this.domain.now) + this.#tscAdjust;
  }
  get #tscAdjust(): bigint {
    return this.msrs.get(MSR.TSC_ADJUST) ?? 0n;
  }
  /** The guest's time-stamp counter counts its own time, from where it set it. */
  setTsc(): void {
    this.#timeOffset = this.domain.timeOffset;
    const offset = BigInt(this.#timeOffset) + this.#tscAdjust;
    this.ops.setTscOffset(this.hvm, BigInt.asUintN(64, offset));
  }

  destroy(): void {
    const { domain: { id }, ops, p2m: { frames } } = this;
    this.pending = this.last = undefined;
    this.ioreq.abandon("the domain was destroyed");
    this.vcpu.processor.switchTo(undefined);
    this.shadow?.destroy();
    ops.destroyVcpu(this.hvm, {
      allocate: () => frames.allocate(id) * 4096,
      free: (address) => frames.release(address / 4096),
    });
  }
}

const [{ length: HYPERCALL_LENGTH }] = HYPERCALL_INSTRUCTIONS;

const IF = BigInt(RFLAGS.IF);
type Bits = Readonly<Record<string, number | boolean | undefined>>;

/** Exits have a length. */
const isEnd = (x: Exit | PartEnd): x is PartEnd => (x as Exit).length === undefined;

/** Exits in a row with no instruction between them, after which time passes: 1 ns each. */
const LIVELOCK = 10_000;
