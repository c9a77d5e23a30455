/**
 * The state of a host: hashed, saved, loaded and compared.
 *
 * @module
 */
import { encodePlain, type Plain, RecordError } from "../devices/record.ts";
import { FRAME, FRAME_FLAG } from "../machine/state.ts";
import type { Host } from "../xen/host.ts";
import type { GuestDomain } from "./domain.ts";
import { FrameHashes, type Hash, hashBytes, hashText, placed, plus } from "./hash.ts";
import { flag, list, record, table, tuple, u32, whole } from "./shape.ts";
import { hvmEngine, type StateBlock, stateBlocks } from "./state_blocks.ts";
import { checkFrames, packState, type StateContents, unpackState } from "./state_file.ts";
import { registerLines } from "./visible.ts";

/** Off the processor, with nothing derived and nothing of an observer's in memory. */
function quiesce(host: Host): void {
  if (!host.hvm) return;
  host.switchTo(undefined);
  for (const d of host.domains) hvmEngine(d)?.quiesce();
}

/**
 * The hash of a host: memory and every block, as 16 hexadecimal digits. Equal states have equal
 * hashes, whoever observes; within a turn, though, the hash is of what the processor has now.
 */
export function hostHash(host: Host): string {
  if (!host.running) quiesce(host);
  const hashes = FrameHashes.of(host.machine);
  hashes.update();
  let sum: Hash = hashes.sum;
  stateBlocks(host).forEach((block, i) => {
    sum = plus(sum, placed(0x1000_0000 + i, hashBytes(encodePlain(block.save()))));
  });
  return hashText(sum);
}

/** The hash of a guest, whatever runs it: its registers, memory and devices. */
export function domainHash(domain: GuestDomain): string {
  const { inner, vcpu } = domain;
  const hashes = FrameHashes.of(inner.host.machine);
  hashes.update();
  let sum: Hash = hashBytes(new TextEncoder().encode(registerLines(vcpu.file).join("\n")));
  for (let gpa = 0; gpa < inner.memory.size; gpa += 4096) {
    const machine = inner.memory.machineAddress(gpa);
    if (machine >= 0) sum = plus(sum, placed(gpa / 4096, hashes.frame(machine / 4096)));
  }
  sum = plus(sum, placed(0x1000_0000, hashBytes(inner.platform.save())));
  return hashText(sum);
}

/** How a domain stands, for those who look at it; no part of the state that is hashed. */
export interface Standing {
  /** The breakpoint at the present address was reached: going on passes it. */
  readonly passing: boolean;
  /** It stands at its exit, which can be answered. */
  readonly atExit: boolean;
}

interface SavedHost {
  readonly host: Readonly<Record<string, Plain>>;
  readonly domains: readonly Readonly<Record<string, Plain>>[];
  readonly flags: readonly (readonly [number, number])[];
  readonly blocks: Readonly<Record<string, { readonly version: number; readonly record: Plain }>>;
  readonly standing: readonly Standing[];
}

const anything = () => {};
const SHAPE = record({
  host: table(anything),
  domains: list(table(anything)),
  flags: list(tuple(whole(), u32)),
  blocks: table(record({ version: whole(), record: anything })),
  standing: list(record({ passing: flag, atExit: flag })),
});
/** What frames keep for ever: ROM, and holes where devices answer. */
const KEPT = FRAME_FLAG.rom | FRAME_FLAG.mmio;

/** What has to be the same here and there, in words that a message can use. */
function hostWords({ options }: Host): Record<string, Plain> {
  const { cpu, memory, unixTime, seed } = options;
  return { cpu, memory, unixTime, seed };
}
function domainWords(host: Host): Record<string, Plain>[] {
  return host.domains.map((domain) => {
    const engine = hvmEngine(domain);
    const { kind } = domain.state;
    return {
      id: domain.id,
      name: domain.name,
      type: domain.type,
      memory: domain.memory.size,
      cpuid: domain.cpuid.model,
      ended: kind === "shutdown" ? domain.describe() : "no",
      ...(engine && {
        paging: engine.shadow ? "shadow" : "hap",
        "shadow frames": engine.shadow?.pool.slots ?? 0,
        "control structure": engine.vcpu.control,
        "save area": engine.vcpu.area,
        "nested tables": engine.p2m.root,
      }),
    };
  });
}

function refuseOther(
  what: string,
  given: Readonly<Record<string, Plain>>,
  here: Readonly<Record<string, Plain>>,
): void {
  for (const key of new Set([...Object.keys(here), ...Object.keys(given)])) {
    if (given[key] === here[key]) continue;
    throw new RecordError(
      `the saved state is of another configuration: ${what} has ${key} ${given[key]} there, and ` +
        `${
          here[key]
        } here; a host is made from the same options, and its domains in the same order`,
    );
  }
}

function checkConfiguration(host: Host, saved: SavedHost): void {
  refuseOther("the host", saved.host, hostWords(host));
  const here = domainWords(host), there = saved.domains;
  const names = (domains: readonly Readonly<Record<string, Plain>>[]) =>
    domains.map(({ id, name }) => `${id} "${name}"`).join(", ") || "none";
  if (names(here) !== names(there)) {
    throw new RecordError(
      `the saved state is of another configuration: it has the domains ${
        names(there)
      }; this host ` +
        `has ${names(here)}`,
    );
  }
  here.forEach((words, n) => refuseOther(`domain ${words.id} "${words.name}"`, there[n], words));
  if (saved.standing.length !== here.length) {
    throw new RecordError(
      `the saved state has ${here.length} domains and says of ${saved.standing.length} how they stand`,
    );
  }
}

/** The whole host as bytes. Equal states give equal bytes. */
export function saveHost(host: Host, standing?: readonly Standing[]): Uint8Array {
  quiesce(host);
  const { ram, frameTable } = host.machine;
  const hashes = FrameHashes.of(host.machine);
  hashes.update();
  const flags: [number, number][] = [];
  for (let frame = 0; frame < ram.length / 4096; frame++) {
    const flag = frameTable[frame * (FRAME.size / 4)] & KEPT;
    if (flag) flags.push([frame, flag]);
  }
  const blocks: Record<string, { version: number; record: Plain }> = {};
  for (const block of stateBlocks(host)) {
    blocks[block.name] = { version: block.version, record: block.save() };
  }
  const saved: SavedHost = {
    host: hostWords(host),
    domains: domainWords(host),
    flags,
    blocks,
    standing: standing ?? host.domains.map(() => ({ passing: false, atExit: false })),
  };
  return packState(saved as unknown as Plain, hashes.used, ram);
}

/**
 * Puts a host into a state that {@linkcode saveHost} gave. All is checked before anything changes.
 *
 * @returns how the domains stand, in their order
 * @throws {RecordError} for bytes that are damaged, of another version or another host, saying what
 *   was expected
 */
export function loadHost(host: Host, bytes: Uint8Array): readonly Standing[] {
  const contents = unpackState(bytes);
  SHAPE(contents.record, "the saved state");
  const saved = contents.record as unknown as SavedHost;
  checkConfiguration(host, saved);
  const frames = host.machine.ram.length / 4096;
  checkFrames(contents, frames);
  saved.flags.forEach(([frame, bits], n) => {
    const ordered = n === 0 || frame > saved.flags[n - 1][0];
    if (frame < frames && ordered && bits && !(bits & ~KEPT)) return;
    throw new RecordError(`the saved state marks frame ${frame} of ${frames} with ${bits}`);
  });
  const put = prepare(stateBlocks(host), saved);
  checkStanding(saved);

  quiesce(host);
  loadMemory(host, saved, contents);
  const { cpu } = host.machine, { hvm } = host;
  const fresh = () => {
    cpu.restored();
    hvm?.ops.refresh(hvm.on, undefined);
  };
  fresh();
  for (const each of put) each();
  // What the blocks asked of vCPUs is done.
  hvm?.ops.unload(hvm.on);
  fresh();
  return saved.standing;
}

/** Who stands at an exit has one. */
function checkStanding({ standing, domains, blocks }: SavedHost): void {
  standing.forEach(({ atExit }, n) => {
    const { id, name } = domains[n];
    const vcpu = blocks[`domain ${id} vcpu`]?.record as { pending?: Plain } | undefined;
    if (!atExit || vcpu?.pending) return;
    throw new RecordError(
      `the saved state says that domain ${name} stands at an exit: it has none`,
    );
  });
}

/** Checks all blocks; the results put them in place. */
function prepare(blocks: readonly StateBlock[], saved: SavedHost): (() => void)[] {
  const there = Object.keys(saved.blocks), here = blocks.map((b) => b.name);
  const missing = here.find((name) => !there.includes(name));
  if (missing) throw new RecordError(`the saved state has no block "${missing}"`);
  const unknown = there.find((name) => !here.includes(name));
  if (unknown) throw new RecordError(`the saved state has a block "${unknown}", unknown here`);
  return blocks.map((block) => {
    const { version, record } = saved.blocks[block.name];
    if (version !== block.version) {
      throw new RecordError(
        `block "${block.name}" has version ${version}; this xvm reads version ${block.version}`,
      );
    }
    return block.prepare(record);
  });
}

function loadMemory(host: Host, { flags }: SavedHost, { frames, data }: StateContents): void {
  const { machine } = host, { ram, frameTable } = machine;
  const hashes = FrameHashes.of(machine);
  hashes.update();
  const touch = (frame: number) => frameTable[frame * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
  for (const frame of hashes.used) {
    ram.fill(0, frame * 4096, frame * 4096 + 4096);
    touch(frame);
  }
  frames.forEach((frame, i) => {
    ram.set(data.subarray(i * 4096, i * 4096 + 4096), frame * 4096);
    touch(frame);
  });
  for (let frame = 0; frame < ram.length / 4096; frame++) {
    frameTable[frame * (FRAME.size / 4)] &= ~KEPT;
  }
  for (const [frame, flag] of flags) frameTable[frame * (FRAME.size / 4)] |= flag;
}
