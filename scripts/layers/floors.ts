/**
 * Who may import whom: the floors of the house, and the order of the rooms on a floor (docs/architecture.md).
 *
 * @module
 */
import { type Import, isTest, type Source, type Violation, within } from "./source.ts";

/** Which folders (or files) a floor may import besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "src/abi": [],
  "src/machine": ["src/abi"],
  "src/devices": ["src/abi"],
  "src/afterburn": ["src/abi", "src/machine/isa"],
  "src/hvm": ["src/abi", "src/machine"],
  "src/pv": ["src/abi", "src/machine"],
  "src/xen": ["src/abi", "src/machine", "src/hvm", "src/pv"],
  "src/dom0": ["src/abi", "src/machine", "src/hvm", "src/pv", "src/xen"],
  "src/builder": [
    "src/abi",
    "src/machine",
    "src/hvm",
    "src/pv",
    "src/xen",
    "src/devices",
    "src/afterburn",
  ],
  "src/debug": [
    "src/abi",
    "src/machine",
    "src/hvm",
    "src/pv",
    "src/xen",
    "src/devices",
    "src/dom0",
    "src/builder",
  ],
  "mod.ts": ["src"],
  "repl": ["mod.ts", "src", "deno.json"],
  "scripts": ["mod.ts", "src", "repl"],
  "tests": ["mod.ts", "src", "repl", "scripts"],
  "compat": [],
};

/** Only here devices and the hypervisor meet. */
const BOARD = "src/builder/board";

/** What a floor's list leaves out stands here in it, over all that stands before. */
const REST = "…";

/**
 * Rooms of a floor, folders or files of it, lowest first: each may import what stands on lines before
 * its own, and itself. Rooms on one line know nothing of each other.
 */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  "src/machine": [
    "wasm/ text.ts record.ts apic/",
    "shape.ts hash.ts",
    "state_block.ts state.ts checks.ts",
    "linkage.ts",
    "mode.ts vendors.ts",
    "mmu/ float/",
    "system/",
    "isa/",
    "values.ts",
    "vmx/ svm/",
    "virtualization.ts",
    "interpreter/",
    REST,
  ],
  "src/hvm": [REST, "vmx/ svm/", "vendors.ts"],
  "src/debug": [
    "values.ts files.ts",
    "platform_kinds.ts",
    "check.ts kinds.ts register_file.ts",
    "walker.ts",
    "vcpu_subject.ts",
    "subject.ts",
    "waits.ts",
    "views/",
    "events/",
    "debugger.ts",
    REST,
  ],
};
/** Here rooms may name the types of what stands above them: an event says whose it is. */
const TYPES_LOOK_UP: readonly string[] = ["src/debug"];

const floorOf = (path: string) => Object.keys(MAY_IMPORT).find((floor) => within(path, floor));

/** The room of a path on a floor, and on which line that stands. */
function roomOf(floor: string, path: string): { room: string; line: number } {
  const inside = path.slice(floor.length + 1), [first, rest] = inside.split("/", 2);
  const name = rest === undefined ? first : `${first}/`;
  const line = ROOMS[floor].findIndex((line) => line.split(" ").includes(name));
  return line < 0 ? { room: REST, line: ROOMS[floor].indexOf(REST) } : { room: name, line };
}

function checkRooms(floor: string, file: string, target: string): string | null {
  if (!ROOMS[floor] || !within(target, floor) || isTest(file)) return null;
  const from = roomOf(floor, file), to = roomOf(floor, target);
  if (from.room === to.room || to.line < from.line) return null;
  const below = ROOMS[floor].slice(0, from.line).join(" ") || "nothing";
  return `${floor}/${from.room} imports ${target}; below it are ${below}`;
}

function checkFloors(floor: string, target: string): string | null {
  if (within(target, floor) || MAY_IMPORT[floor].some((ok) => within(target, ok))) return null;
  const allowed = MAY_IMPORT[floor].join(", ") || "nothing";
  return `${floor} imports ${target}; besides itself it may import ${allowed}`;
}

function checkImport(file: string, { specifier, target, typeOnly }: Import): string | null {
  const floor = floorOf(file);
  if (!floor) {
    return `no layer is known for this place; known: ${Object.keys(MAY_IMPORT).join(" ")}`;
  }
  if (target === null) {
    const bare = floor === "src/abi" || floor === "src/devices";
    return bare ? `${floor} imports no package, but imports "${specifier}"` : null;
  }
  const refused = checkFloors(floor, target);
  if (refused || typeOnly && TYPES_LOOK_UP.includes(floor)) return refused;
  return checkRooms(floor, file, target);
}

/** Imports of a file that lead up. */
export function checkPlaces({ file, imports }: Source): Violation[] {
  const found = imports.flatMap((each) => {
    const message = checkImport(file, each);
    return message === null ? [] : [{ file, line: each.line, message }];
  });
  const meets = (floor: string) => imports.some(({ target }) => target && within(target, floor));
  if (
    file.startsWith("src/builder/") && !file.startsWith(BOARD) && meets("src/devices") &&
    meets("src/xen")
  ) found.push({ file, line: 1, message: `devices and xen meet only in ${BOARD}.ts` });
  return found;
}
