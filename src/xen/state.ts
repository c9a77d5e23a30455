/**
 * The state of a host, hashed, saved and loaded: memory, and the blocks that its owners registered.
 *
 * @module
 */
import type { Plain } from "../machine/record.ts";
import { hashText, plus } from "../machine/hash.ts";
import { FRAME, FRAME_FLAG } from "../machine/state.ts";
import type { Host } from "./host.ts";
import { checkFrames, packState, type StateContents, unpackState } from "./state_file.ts";
import { FrameHashes } from "../machine/frame_hashes.ts";

/** Off the processor, with nothing derived and nothing of an observer's in memory. */
function quiesce(host: Host): void {
  if (!host.ops) return;
  host.unload();
  for (const { engine } of host.vcpus) engine.quiesce();
}

/** The hashes of all frames as they are now. */
function framesOf({ machine }: Host): FrameHashes {
  const hashes = FrameHashes.of(machine);
  hashes.update();
  return hashes;
}

/**
 * The hash of a host: memory and every block, as 16 hexadecimal digits. Equal states have equal
 * hashes, whoever observes; within a turn, though, the hash is of what the processor has now.
 */
export function hostHash(host: Host): string {
  if (!host.running) quiesce(host);
  return hashText(plus(framesOf(host).sum, host.blocks.hash));
}

/** The whole host as bytes. Equal states give equal bytes. */
export function saveHost(host: Host): Uint8Array {
  quiesce(host);
  return packState(host.blocks.save() as unknown as Plain, framesOf(host).used, host.machine.ram);
}

/**
 * Puts a host into a state that {@linkcode saveHost} gave. All is checked before anything changes.
 *
 * @throws {RecordError} for bytes that are damaged, of another version or another host, saying what
 *   was expected
 */
export function loadHost(host: Host, bytes: Uint8Array): void {
  const { machine: { size }, ops, processors } = host;
  const contents = unpackState(bytes);
  const put = host.blocks.prepare(contents.record);
  checkFrames(contents, size / 4096);

  quiesce(host);
  loadMemory(host, contents);
  const fresh = () => {
    for (const { cpu, hvm } of processors) {
      cpu.restored();
      if (hvm) ops?.refresh(hvm, undefined);
    }
  };
  fresh();
  put();
  // What the blocks asked of vCPUs is done.
  for (const { hvm } of processors) if (hvm) ops?.unload(hvm);
  fresh();
  host.turns.beginAt(host.machine.count);
  for (const { onLoaded } of host.domains) for (const told of [...onLoaded]) told();
}

function loadMemory(host: Host, { frames, data }: StateContents): void {
  const { ram, frameTable } = host.machine;
  const touch = (frame: number) => frameTable[frame * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
  for (const frame of framesOf(host).used) {
    ram.fill(0, frame * 4096, frame * 4096 + 4096);
    touch(frame);
  }
  frames.forEach((frame, i) => {
    ram.set(data.subarray(i * 4096, i * 4096 + 4096), frame * 4096);
    touch(frame);
  });
}
