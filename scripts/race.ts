/**
 * Two domains race for a mailbox that a script serves: in each round the first to claim it wins. The
 * schedule is made of instructions, the seed and the weights alone, so each race can be run again to
 * the same winner at the same instruction, and another seed or weight is another interleaving.
 *
 * `deno task xvm run scripts/race.ts [--rounds N] [--seed N]`
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { type Domain, Hypervisor } from "xvm";
import { assemble } from "../src/machine/isa/encode.ts";

const MAILBOX = 0x500, EXIT = 0xf4, LOAD = 0x100000;

/** A kernel that works for a while, claims the mailbox for the round it knows, and reads the next. */
function racer(start: number, rounds: number): Uint8Array {
  return assemble(
    `bits 32
    org ${LOAD}
    header: dd 0x1badb002, 0x10000, ${-(0x1badb002 + 0x10000) >>> 0}
    dd header, header, 0, 0, start
    start:
      mov ebx, ${start}
      xor esi, esi
      mov dx, ${MAILBOX}
    round:
      imul ebx, ebx, 1103515245
      add ebx, 12345
      mov ecx, ebx
      shr ecx, 13
      add ecx, 100000
    work:
      dec ecx
      jnz work
      mov eax, esi
      out dx, eax
      in eax, dx
      mov esi, eax
      cmp eax, ${rounds}
      jb round
      mov al, 0
      out ${EXIT}, al`,
    { mode: 32 },
  ).bytes;
}

interface Win {
  readonly winner: string;
  /** Instructions of the host, and of the winner, when it claimed. */
  readonly host: number;
  readonly own: number;
}

/** One race on a host of its own. */
async function race(seed: number, weights: readonly number[], rounds: number): Promise<Win[]> {
  await using hv = await Hypervisor.start({ memory: "64M", seed });
  const wins: Win[] = [];
  const domains: Domain[] = [];
  for (const [n, name] of ["left", "right"].entries()) {
    const dom = await hv.createDomain({
      name,
      kernel: racer(n + 1, rounds),
      memory: "8M",
      weight: weights[n],
    });
    dom.ioreq.serve({ port: [MAILBOX, MAILBOX + 3] }, {
      write(_, round) {
        // Whoever claims a round that is over has lost it.
        if (round !== wins.length) return;
        const own = dom.statistics().instructions;
        wins.push({ winner: name, host: hv.cpus[0].instructions, own });
      },
      read: () => wins.length,
    });
    domains.push(dom);
  }
  for (const dom of domains) dom.unpause();
  await Promise.all(domains.map((dom) => dom.ended));
  return wins;
}

const given = parseArgs(Deno.args, { string: ["rounds", "seed"] });
const rounds = Number(given.rounds ?? 12), seed = Number(given.seed ?? 1);
const EVEN = [256, 256];
const races = [
  { title: `seed ${seed}`, wins: await race(seed, EVEN, rounds) },
  { title: `seed ${seed} again`, wins: await race(seed, EVEN, rounds) },
  { title: `seed ${seed + 1}`, wins: await race(seed + 1, EVEN, rounds) },
  { title: `seed ${seed}, right 512`, wins: await race(seed, [256, 512], rounds) },
];
const cell = ({ winner, host }: Win) => `${winner.padEnd(5)} at ${host.toLocaleString("en")}`;
const widths = races.map(({ title, wins }) =>
  Math.max(title.length, ...wins.map((win) => cell(win).length))
);
const row = (first: string, cells: string[]) =>
  [first.padStart(5), ...cells.map((text, n) => text.padEnd(widths[n]))].join("   ").trimEnd();
console.log(row("round", races.map(({ title }) => title)));
for (let round = 0; round < rounds; round++) {
  console.log(row(`${round + 1}`, races.map(({ wins }) => cell(wins[round]))));
}
const score = (wins: Win[]) => `${wins.filter((w) => w.winner === "left").length} left`;
console.log(row("", races.map(({ wins }) => score(wins))));
const same = JSON.stringify(races[0].wins) === JSON.stringify(races[1].wins);
console.log(
  same
    ? "the same seed gave the same winners at the same instructions"
    : "THE SAME SEED GAVE ANOTHER RACE",
);
if (!same) Deno.exit(1);
