/**
 * The life of address spaces under shadow paging: when each was entered first and last, how often,
 * how many writes to page tables were completed in it, and what its shadow tables held at the most.
 *
 * `deno task xvm run scripts/shadow_life.ts --kernel vmlinuz --ramdisk initrd.gz [--shadow-memory 1M]`
 *
 * @module
 */
import { guest, runUntil } from "./guest.ts";

/** One address space, by its CR3. */
interface Space {
  readonly number: number;
  readonly root: bigint;
  readonly born: number;
  last: number;
  switches: number;
  writes: number;
  /** Shadow tables and entries, the most seen when it was left. */
  tables: number;
  entries: number;
}

await using g = await guest(["--paging", "shadow", ...Deno.args]);
const { dom } = g;
const spaces = new Map<bigint, Space>();
let current: Space | undefined;

/** Shadow tables below the root that the processor walks now. */
function measure(space: Space): void {
  const shadow = dom.shadow!, byAddress = new Map(shadow.tables.map((t) => [t.address, t]));
  const seen = new Set([shadow.tables[0]]);
  let entries = 0;
  for (const table of seen) {
    entries += table.present;
    for (const { table: next } of table.entries) {
      const below = next === undefined ? undefined : byAddress.get(next);
      if (below) seen.add(below);
    }
  }
  space.tables = Math.max(space.tables, seen.size);
  space.entries = Math.max(space.entries, entries);
}

dom.trace("cr", { cr: 3, write: true }, ({ value, position }) => {
  // Looking at all tables takes a while: at the first switches, then now and then.
  if (current && (current.switches < 4 || current.switches % 256 === 0)) measure(current);
  const root = value & ~0xfffn;
  current = spaces.get(root);
  if (!current) {
    const { time } = position, number = spaces.size + 1;
    current = { number, root, born: time, last: 0, switches: 0, writes: 0, tables: 0, entries: 0 };
    spaces.set(root, current);
  }
  current.switches++;
  current.last = position.time;
});
dom.trace("shadow-write", {}, () => {
  if (current) current.writes++;
});
await runUntil(g);

const seconds = (time: number) => (time / 1e9).toFixed(4).padStart(8);
console.log(" space        cr3  first s    last s  switches   writes  tables  entries");
for (const s of spaces.values()) {
  console.log(
    [
      String(s.number).padStart(6),
      `0x${s.root.toString(16)}`.padStart(10),
      seconds(s.born),
      ` ${seconds(s.last)}`,
      String(s.switches).padStart(9),
      String(s.writes).padStart(8),
      String(s.tables).padStart(7),
      String(s.entries).padStart(8),
    ].join(" "),
  );
}
console.log(`\n${String(dom.shadow).split("\n").slice(0, 2).join("\n")}`);
