/**
 * Random contents of control structures: any value in any field that software may write. The entry
 * fails, with a check that says why and that belongs to the reason given, or the guest runs; the
 * hypervisor never meets an exception of ours, and nothing outside machine memory is touched.
 *
 * Each episode runs twice from the same state: once with what the processor remembers of checks that
 * passed before the fields were written, once with nothing remembered. Both must come to the same.
 *
 *     deno run -A tests/fuzz/structures.ts vmx|svm EPISODES [SEED]
 *
 * @module
 */
import { vmcbFields } from "../../src/abi/x86/vmcb.ts";
import { vmcsFields } from "../../src/abi/x86/vmcs.ts";
import type { Exit, ExitOf } from "../../src/hvm/exit.ts";
import type { Stopped } from "../../src/hvm/ops.ts";
import { Cpuid } from "../../src/machine/cpuid.ts";
import { VMCS_REVISION } from "../../src/machine/vmx/layout.ts";
import { allChecks } from "../../src/machine/checks.ts";
import {
  ARCHITECTURAL_END,
  ARCHITECTURAL_START,
  EXTENSION_AREA,
  V,
} from "../../src/machine/state.ts";
import { FRAME, FRAME_FLAG } from "../../src/machine/state.ts";
import type { HvmEngine } from "../../src/xen/hvm.ts";
import { randomCode } from "./code.ts";
import { initialState, MODES, pagingOf } from "./modes.ts";
import { Random } from "./random.ts";
import { svmExpectation } from "./svm_rules.ts";
import { vmxExpectation } from "./vmx_rules.ts";
import { GUEST_MEMORY, Subject } from "./subject.ts";
import { AT, descriptorTables, interruptTable, pageTables, taskStates } from "./tables.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

/** A field as far as it is filled here. */
export interface StructureField {
  readonly name: string;
  readonly bits: number;
}

/** A vendor's control structure. */
export interface Structure {
  readonly cpu: CpuModel;
  /** All that software may write. */
  readonly fields: readonly StructureField[];
  /** Names of the checks that its entry makes, and what failed when one of them says no. */
  readonly reasons: readonly (readonly [check: RegExp, what: ExitOf<"entry-failure">["what"]])[];
  /** Fields that belong together, changed so that checks behind other checks are reached. */
  readonly together: readonly ((r: Random, old: (name: string) => bigint) => Contents)[];
  /** What the manual's rules say of the contents, worked out another way; undefined: nothing is wrong. */
  readonly expected?: (subject: Subject) => Expectation | undefined;
  /** Checks that no contents of the structure can reach, and why. */
  readonly unreachable: Readonly<Record<string, string>>;
}

/** What is wrong with a structure's contents: the part, and all rules in it that are broken. */
export interface Expectation {
  /** Undefined where the vendor makes no difference. */
  readonly what?: ExitOf<"entry-failure">["what"];
  readonly checks: ReadonlySet<string>;
}

/** Fields and what is written to them. */
type Contents = readonly (readonly [name: string, value: bigint])[];

const SEGMENTS = ["Es", "Cs", "Ss", "Ds", "Fs", "Gs", "Tr", "Ldtr"];
const TPR_SHADOW = 1n << 21n, NMI_WINDOW = 1n << 22n;

const VMX_TOGETHER: Structure["together"] = [
  // Events of every type, most of them with what belongs to them.
  (r) => {
    const type = r.pick([0, 0, 0, 2, 2, 3, 3, 3, 4, 5, 6, 7, 1]),
      random = r.chance(0.7) ? r.below(32) : r.below(256);
    const vector = type === 2 && r.chance(0.8) ? 2 : random;
    const code = r.chance(0.4) ? 0x800 : 0, reserved = r.chance(0.05) ? 1 << 12 + r.below(19) : 0;
    return [
      [
        "entryInterruptionInformation",
        BigInt((0x8000_0000 | reserved | code | type << 8 | vector) >>> 0),
      ],
      ["entryExceptionErrorCode", BigInt(r.chance(0.8) ? r.below(0x1_0000) : r.u32())],
      ["entryInstructionLength", BigInt(r.chance(0.8) ? r.below(16) : r.u32())],
    ];
  },
  // What may be injected into depends on these.
  (r, old) => [
    ["guestInterruptibility", r.chance(0.7) ? 1n << BigInt(r.below(4)) : BigInt(r.below(16))],
    ["guestActivity", BigInt(r.chance(0.6) ? 0 : r.below(5))],
    ["guestRflags", old("guestRflags") & ~0x300n | BigInt(r.chance(0.7) ? 2 : r.below(4)) << 8n],
    ["guestPendingDebug", r.chance(0.8) ? 0n : BigInt(r.below(0x8000))],
  ],
  (r, old) => [
    ["processorBasedControls", old("processorBasedControls") | TPR_SHADOW],
    ["virtualApicAddress", BigInt(r.below(0x100) * 0x1000 + (r.chance(0.2) ? 8 : 0))],
    ["tprThreshold", BigInt(r.below(r.chance(0.8) ? 16 : 64))],
  ],
  (r, old) => [
    ["processorBasedControls", old("processorBasedControls") | (r.chance(0.5) ? NMI_WINDOW : 0n)],
    ["pinBasedControls", old("pinBasedControls") & ~BigInt(r.pick([0x08, 0x20, 0x28]))],
  ],
  // One segment register, without unrestricted guest in half of the cases.
  (r, old) => {
    const s = r.pick(SEGMENTS), rights = `guest${s}AccessRights`, selector = `guest${s}Selector`;
    return [
      [rights, old(rights) ^ 1n << BigInt(r.below(r.chance(0.8) ? 8 : 17))],
      [selector, old(selector) ^ BigInt(r.chance(0.4) ? r.below(8) : 0)],
      ...(r.chance(0.5) ? [["secondaryControls", old("secondaryControls") & ~0x80n] as const] : []),
    ];
  },
  (r, old) => [
    ["secondaryControls", old("secondaryControls") ^ 1n << BigInt(r.below(8))],
    ["exitControls", old("exitControls") ^ (r.chance(0.5) ? 1n << 22n : 0n)],
  ],
  // Which parts of the state are loaded, and for which mode.
  (r, old) => [
    ["entryControls", old("entryControls") ^ 1n << BigInt(r.pick([2, 9, 9, 14, 15]))],
    ...(r.chance(0.3)
      ? [["exitControls", old("exitControls") ^ 1n << BigInt(r.pick([2, 18, 19, 20, 21]))] as const]
      : []),
    ...(r.chance(0.3)
      ? [[r.pick(["guestEfer", "guestPat", "hostEfer"]), BigInt(r.below(0x1000))] as const]
      : []),
  ],
  (r, old) => {
    const n = r.below(4);
    return [
      [`guestPdpte${n}`, 1n | 1n << BigInt(r.below(64))],
      ["guestCr0", old("guestCr0") ^ 1n << BigInt(r.pick([0, 5, 31]))],
    ];
  },
  (r, old) => [
    // A host outside IA-32e mode, whose EFER is not loaded.
    ["exitControls", (old("exitControls") ^ 0x200n) & (r.chance(0.5) ? -1n : ~(1n << 21n))],
    ["hostSsSelector", BigInt(r.below(3) * 8)],
  ],
  (r, old) => [
    [`${r.pick(["exitMsrLoad", "exitMsrStore", "entryMsrLoad"])}Count`, BigInt(r.below(4))],
    ["entryMsrLoadAddress", BigInt(r.below(0x1000)) << (r.chance(0.8) ? 4n : 0n)],
    ["exitMsrLoadAddress", BigInt(r.below(0x1000)) << (r.chance(0.8) ? 4n : 0n)],
    ["exitMsrStoreAddress", old("exitMsrStoreAddress") ^ 1n << BigInt(r.below(64))],
  ],
];

const ENABLE = 1n;
const SVM_TOGETHER: Structure["together"] = [
  // Events of every type.
  (r) => {
    const type = r.pick([0, 0, 2, 3, 3, 3, 4, 1, 5, 7]), vector = r.below(r.chance(0.7) ? 32 : 256);
    const info = (0x8000_0000 | (r.chance(0.4) ? 0x800 : 0) | type << 8 | vector) >>> 0;
    return [["eventInjection", BigInt(info) | BigInt(r.below(0x1_0000)) << 32n]];
  },
  // The way into long mode.
  (r, old) => [
    ["efer", old("efer") ^ 1n << BigInt(r.pick([0, 8, 8, 10, 11, 12]))],
    ["cr0", old("cr0") ^ 1n << BigInt(r.pick([0, 0, 29, 30, 31, 31]))],
    ["cr4", old("cr4") ^ (r.chance(0.5) ? 0x20n : 0n)],
    ["csAttributes", old("csAttributes") ^ BigInt(r.below(4)) << 9n],
  ],
  // Nested paging off: the guest's CR3 is the machine's.
  (r, old) => [
    ["nestedControl", old("nestedControl") ^ (r.chance(0.5) ? ENABLE : 0n)],
    ["nestedCr3", old("nestedCr3") ^ 1n << BigInt(r.below(64))],
    ["pat", old("pat") ^ (r.chance(0.3) ? 1n << BigInt(r.below(64)) : 0n)],
    ["cr3", BigInt(r.below(0x1000)) << BigInt(r.pick([5, 12]))],
  ],
  (r, old) => [
    ["asid", BigInt(r.below(2))],
    ["intercepts2", old("intercepts2") ^ BigInt(r.below(2))],
  ],
  (r) => [[
    r.pick(["iopmBase", "msrpmBase"]),
    (1n << BigInt(30 + r.below(12))) - BigInt(r.below(5) * 0x1000),
  ]],
  (r, old) => [
    ["virtualInterrupt", old("virtualInterrupt") ^ 1n << BigInt(r.pick([0, 8, 8, 16, 20, 24]))],
    ["virtualVector", BigInt(r.below(256))],
    ["interruptShadow", BigInt(r.below(2))],
    ["rflags", old("rflags") ^ BigInt(r.below(4)) << 8n],
    ["intercepts1", old("intercepts1") ^ 1n << BigInt(r.below(32))],
  ],
];

const CPUID_STATE = { osxsave: false, apicEnabled: true, apicId: 0, xcr0: 1 };

/** By the vendor's name for its extensions. */
export const STRUCTURES: Readonly<Record<string, Structure>> = {
  vmx: {
    cpu: "intel",
    fields: vmcsFields.filter((f) => !f.readOnly),
    reasons: [
      [/^vmx\.(controls|inject)\./, "controls"],
      [/^vmx\.host\./, "host-state"],
      [/^vmx\.guest\./, "guest-state"],
      [/^vmx\.msr\.load$/, "msr-loading"],
    ],
    together: VMX_TOGETHER,
    expected: (subject) => {
      const { ops, hvm: vcpu } = subject.engine!, { ram } = subject.host.machine;
      return vmxExpectation((field) => ops.readRaw(vcpu, field), {
        width: new Cpuid("intel").read(0x8000_0008, 0, CPUID_STATE).eax & 0xff,
        ram: new DataView(ram.buffer, ram.byteOffset, ram.length),
        current: BigInt(vcpu.control),
        revision: VMCS_REVISION,
      });
    },
    unreachable: {
      "vmx.host.ia32eGuest": "this host runs in IA-32e mode, so vmx.host.addressSpace fails first",
      "vmx.host.ripWide": "as above",
    },
  },
  svm: {
    cpu: "amd",
    fields: vmcbFields,
    reasons: [
      [/^svm\.(asid|iopm|msrpm|hsave|intercept\.vmrun|inject\.|nested\.)/, "controls"],
      [/^svm\.(efer|cr0|cr3|cr4|long\.|dr6|dr7|pdpte)/, "guest-state"],
    ],
    together: SVM_TOGETHER,
    expected: (subject) => {
      const { ops, hvm: vcpu } = subject.engine!, { ram } = subject.host.machine;
      const cpuid = new Cpuid("amd");
      return svmExpectation((field) => ops.readRaw(vcpu, field), {
        width: cpuid.read(0x8000_0008, 0, CPUID_STATE).eax & 0xff,
        cr4: BigInt(cpuid.cr4Valid >>> 0),
        efer: BigInt(cpuid.eferValid >>> 0),
        ram: new DataView(ram.buffer, ram.byteOffset, ram.length),
      });
    },
    unreachable: {
      "svm.hsave": "VM_HSAVE_PA is no field",
      "svm.nested.paging": "this host has paging on",
    },
  },
};

export interface StructureCampaign {
  readonly structure: Structure;
  readonly episodes: number;
  readonly seed: number;
  /** Told before each episode. */
  readonly progress?: (episode: number) => void;
}

export interface StructureResult {
  readonly episodes: number;
  /** How often each check of the entry failed, by name. */
  readonly checks: ReadonlyMap<string, number>;
  /** Checks of the entry that no episode reached. */
  readonly missed: readonly string[];
  /** How episodes ended, by kind of exit. */
  readonly ends: Readonly<Record<string, number>>;
  /** What should never be. */
  readonly findings: readonly string[];
}

/** Instructions that an entered guest may run. */
const BUDGET = 200;
const MAX_FINDINGS = 10;
/** Episodes from one start, and between two looks at all of memory. */
const SAME_START = 40, INSPECTION = 500;

const CELLS = { from: V.zero, to: V.zero + 0x1000 };
const AREA = { from: EXTENSION_AREA.vmx.start, to: EXTENSION_AREA.svm.end };

/** A state to come back to: memory by its dirty marks, the processor by its blocks. */
class Snapshot {
  readonly #ram: Uint8Array;
  readonly #blocks: readonly (readonly [number, Uint8Array])[];
  readonly #count: number;
  readonly #idle: number;
  readonly #fruitless: number;

  constructor(readonly subject: Subject) {
    const { cpu, machine } = this.#parts;
    cpu.flushTlb();
    this.#clean();
    this.#ram = machine.ram.slice();
    this.#blocks = [[ARCHITECTURAL_START, ARCHITECTURAL_END], [CELLS.from, CELLS.to], [
      AREA.from,
      AREA.to,
    ]].map(([from, to]) => [from, cpu.u8.slice(from, to)]);
    this.#count = cpu.count;
    this.#idle = cpu.idle;
    this.#fruitless = cpu.fruitless;
  }

  get #parts() {
    const { machine } = this.subject.host;
    return { machine, cpu: machine.cpu, frames: machine.frameTable };
  }
  #clean(): void {
    const { frames } = this.#parts;
    for (let at = 0; at < frames.length; at += FRAME.size / 4) frames[at] &= ~FRAME_FLAG.dirty;
  }

  restore(): void {
    const { machine, cpu, frames } = this.#parts, engine = this.subject.engine!;
    const blocks = () => {
      for (const [from, bytes] of this.#blocks) cpu.u8.set(bytes, from);
    };
    blocks();
    // What is kept in objects; it may write into the structures.
    engine.ops.refresh(engine.on, engine.hvm);
    for (let frame = 0; frame < machine.ram.length / 4096; frame++) {
      if (!(frames[frame * (FRAME.size / 4)] & FRAME_FLAG.dirty)) continue;
      machine.write(frame * 4096, this.#ram.subarray(frame * 4096, frame * 4096 + 4096));
    }
    cpu.flushTlb();
    this.#clean();
    // Checks that had passed count as passed again.
    blocks();
    cpu.count = this.#count;
    cpu.idle = this.#idle;
    cpu.fruitless = this.#fruitless;
  }

  /** A byte that was changed and whose frame was not marked; undefined if there is none. */
  unmarked(): string | undefined {
    const { ram } = this.#parts.machine;
    const now = new BigUint64Array(ram.buffer, ram.byteOffset, ram.length / 8);
    const then = new BigUint64Array(this.#ram.buffer);
    const at = now.findIndex((word, i) => word !== then[i]);
    return at < 0 ? undefined : `machine address 0x${(8 * at).toString(16)} was written unmarked`;
  }

  /** The processor as text, for comparison. */
  processor(): string {
    const { cpu } = this.#parts;
    cpu.system.materialize();
    return cpu.u8.slice(ARCHITECTURAL_START, ARCHITECTURAL_END).toHex();
  }
}

/** A guest that can be entered, in any mode, with random code; entered once, and left. */
function start(subject: Subject, r: Random, { fields }: Structure): void {
  const mode = r.pick(MODES), paging = pagingOf(r, mode);
  subject.write(AT.gdt, descriptorTables(r));
  subject.write(AT.idt, interruptTable(r, mode === "long64"));
  subject.write(AT.tss, taskStates(r));
  if (paging !== "none") subject.write(AT.pages, pageTables(r, paging));
  const state = initialState(r, mode, paging);
  const at = Number((state.segments.cs.base + state.rip) & 0xffff_ffffn);
  subject.write(at, randomCode(r, Math.min(0x100, GUEST_MEMORY - at), "system"));
  subject.enter(state);
  const { ops, hvm: vcpu } = subject.engine!;
  ops.enter(vcpu, { budget: 1 });
  ops.cancelEvent(vcpu);
  // Whatever the processor still holds of the structure goes to memory.
  for (const { name } of fields) ops.readRaw(vcpu, name);
}

/** A value for a field that holds `old`. */
function valueFor(r: Random, { fields }: Structure, bits: number, old: bigint, engine: HvmEngine) {
  const bit = () => 1n << BigInt(r.below(bits));
  switch (r.below(10)) {
    case 0:
      return r.u64();
    case 1:
      return r.pick([0n, -1n, 1n]);
    case 2:
      return bit() - BigInt(r.below(2));
    case 3:
      return engine.ops.readRaw(engine.hvm, r.pick(fields).name);
    case 4: {
      // Where there are frames: the structures themselves, tables, the guest's pages.
      const { hvm: vcpu, p2m } = engine;
      const frame = r.pick([
        vcpu.control,
        vcpu.area,
        p2m.root,
        p2m.machineFrame(r.below(512)) * 4096,
      ]);
      return BigInt(frame) + BigInt(r.chance(0.3) ? r.below(0x1000) : 0);
    }
    case 5:
      return old ^ bit() ^ bit();
    case 6:
      return ~old;
    default:
      return old ^ bit();
  }
}

/** Which fields get which values. */
function contents(r: Random, structure: Structure, engine: HvmEngine): Contents {
  const read = (name: string) => engine.ops.readRaw(engine.hvm, name);
  const together = () => r.pick(structure.together)(r, read);
  if (r.chance(0.3)) return r.chance(0.5) ? together() : [...together(), ...together()];
  const many = r.below(20);
  const count = many < 10 ? 1 : many < 16 ? 2 + r.below(2) : many < 19 ? 4 + r.below(8) : 60;
  const chosen = r.chance(0.2) ? [...together()] : [];
  for (let n = 0; n < count; n++) {
    const { name, bits } = r.pick(structure.fields);
    chosen.push([name, BigInt.asUintN(bits, valueFor(r, structure, bits, read(name), engine))]);
  }
  return chosen;
}

const describe = (exit: Exit | Stopped): string =>
  JSON.stringify(exit, (_, v) => typeof v === "bigint" ? `0x${v.toString(16)}` : v);

/** What is wrong with how the guest came back; undefined if nothing. */
function wrong(exit: Exit | Stopped, { reasons }: Structure, expected: Expectation | undefined) {
  if (typeof exit === "string" || exit.kind !== "entry-failure") {
    if (!expected) return undefined;
    return `entered, against ${[...expected.checks].join(" ")}: ${describe(exit)}`;
  }
  const reason = reasons.find(([check]) => check.test(exit.check));
  if (!reason) return `the entry failed without a check of its own: ${describe(exit)}`;
  if (reason[1] !== exit.what) return `${exit.check} is no reason for ${describe(exit)}`;
  // MSR areas come after all that the rules are about.
  if (exit.what === "msr-loading") {
    return expected && `${[...expected.checks].join(" ")} was not seen: ${describe(exit)}`;
  }
  const part = expected?.what ?? exit.what;
  if (expected && part === exit.what && expected.checks.has(exit.check)) return undefined;
  const rules = expected ? `${part}: ${[...expected.checks].join(" ")}` : "nothing is wrong";
  return `the rules say: ${rules}; the processor: ${describe(exit)}`;
}

export async function structureCampaign(options: StructureCampaign): Promise<StructureResult> {
  const { structure, episodes, seed, progress } = options;
  const checks = new Map<string, number>(), ends: Record<string, number> = {};
  const findings: string[] = [];
  const subject = await Subject.make("hvm", seed, structure.cpu);
  const engine = subject.engine!, { ops, hvm: vcpu, on } = engine;
  const whole = new Snapshot(subject);
  let snapshot = whole, episode = 0;
  for (; episode < episodes && findings.length < MAX_FINDINGS; episode++) {
    progress?.(episode);
    const r = new Random(seed * 1_000_003 + episode);
    if (episode % SAME_START === 0) {
      whole.restore();
      start(subject, new Random(seed * 7919 + episode), structure);
      snapshot = new Snapshot(subject);
    }
    const fields = contents(r, structure, engine);
    const enter = (forgetful: boolean): { exit: Exit | Stopped; processor: string } => {
      for (const [name, value] of fields) ops.writeRaw(vcpu, name, value);
      if (forgetful) ops.refresh(on, vcpu);
      const exit = ops.enter(vcpu, { budget: BUDGET });
      return { exit, processor: snapshot.processor() };
    };
    const note = (text: string) => {
      const written = fields.map(([name, v]) => `${name}=0x${v.toString(16)}`).join(" ");
      findings.push(`episode ${episode}: ${text}; ${written}`);
    };
    try {
      for (const [name, value] of fields) ops.writeRaw(vcpu, name, value);
      const expected = structure.expected?.(subject);
      snapshot.restore();
      const first = enter(false);
      snapshot.restore();
      if (episode % INSPECTION === 0) {
        const unmarked = snapshot.unmarked();
        if (unmarked) note(unmarked);
      }
      const second = enter(true);
      snapshot.restore();
      const { exit } = first;
      const end = typeof exit === "string" ? "stopped" : exit.kind;
      ends[end] = (ends[end] ?? 0) + 1;
      if (typeof exit === "object" && exit.kind === "entry-failure") {
        checks.set(exit.check, (checks.get(exit.check) ?? 0) + 1);
      }
      const text = structure.expected && wrong(exit, structure, expected);
      if (text) note(text);
      if (describe(exit) !== describe(second.exit)) {
        note(`remembered checks: ${describe(exit)}, all made anew: ${describe(second.exit)}`);
      } else if (first.processor !== second.processor) note("the processor's state differs");
    } catch (error) {
      note((error as Error).stack ?? String(error));
      snapshot.restore();
    }
  }
  whole.restore();
  const damage = subject.damage();
  if (damage) findings.push(damage);
  const all = allChecks().map((c) => c.name);
  const own = all.filter((name) => structure.reasons.some(([check]) => check.test(name)));
  const missed = own.filter((name) => !checks.has(name) && !(name in structure.unreachable));
  return { episodes: episode, checks, missed, ends, findings };
}

if (import.meta.main) {
  const [name, episodes, seed = "1"] = Deno.args;
  if (!STRUCTURES[name] || !(Number(episodes) > 0)) {
    console.error(
      `structures.ts: ${Object.keys(STRUCTURES).join("|")} EPISODES [SEED] was expected`,
    );
    Deno.exit(2);
  }
  const file = Deno.makeTempFileSync({ prefix: "xvm-fuzz-" });
  console.error(`the running episode is in ${file}`);
  const started = performance.now();
  const result = await structureCampaign({
    structure: STRUCTURES[name],
    episodes: Number(episodes),
    seed: Number(seed),
    progress: (episode) => {
      if (episode % 64 === 0) Deno.writeTextFileSync(file, String(episode));
    },
  });
  const seconds = (performance.now() - started) / 1000;
  for (const [check, n] of [...result.checks].sort((a, b) => b[1] - a[1])) {
    console.log(`${String(n).padStart(8)}  ${check}`);
  }
  console.log(`not reached: ${result.missed.join(" ") || "none"}`);
  console.log(result.ends);
  for (const finding of result.findings) console.log(finding);
  console.log(
    `${result.episodes} episodes in ${
      seconds.toFixed(1)
    } s, ${result.checks.size} checks reached, ` +
      `${result.missed.length} not, ${result.findings.length} findings`,
  );
  if (result.findings.length) Deno.exit(1);
  Deno.removeSync(file);
}
