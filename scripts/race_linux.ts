/**
 * A lost update in a Linux guest, hunted over seeds: two shells add to the number in one file without a
 * lock, on two vCPUs. The guest boots once; each seed begins at the saved state, with the interleaving
 * that the seed picks from there on, and what is found runs again to the same instruction and state.
 *
 * `deno task xvm run scripts/race_linux.ts [--seeds N] [--turns MIN-MAX] [--vcpus N] --help`
 *
 * @module
 */
import { Hypervisor } from "xvm";
import { writeCpio } from "../repl/guests/cpio.ts";
import { guestsFolder } from "../repl/guests/images.ts";
import { type Found, hunt, huntOptions, number, type Turns, word } from "./hunt.ts";

const options = huntOptions(
  "A lost update between shells of a Linux guest, hunted over seeds:\n\n" +
    "  deno task xvm run scripts/race_linux.ts [OPTIONS]",
  "2000-10000",
  {
    kernel: "a Debian kernel; xvm guests fetch has some (686-pae)",
    type: "pvh, hvm or bare (pvh)",
    adds: "how often each shell adds one (5)",
  },
);
const { vcpus, cpu, own } = options;
const adds = number(own.adds ?? "5", "adds", 1, 10_000);
const type = word(own.type, "type", "pvh", "hvm", "bare") ?? "pvh";
const cpus = type === "bare" ? vcpus : options.cpus;

/** The first program of the guest: a shell for each vCPU, that works for a while, reads, adds and writes. */
const PROGRAM = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
echo 0 > /tmp/count
adder() {
  i=0
  while [ $i -lt ${adds} ]; do
    j=0; while [ $j -lt $(( 10 + ($1 * 7 + i) * 31 % 23 )) ]; do j=$((j + 1)); done
    read n < /tmp/count
    echo $((n + 1)) > /tmp/count
    i=$((i + 1))
  done
}
echo READY $(nproc)
for shell in ${Array.from({ length: vcpus }, (_, n) => n + 1).join(" ")}; do adder $shell & done
wait
echo COUNT $(cat /tmp/count) END
while :; do sleep 1000; done
`;

const folder = guestsFolder(), name = own.kernel ?? "686-pae";
const bits = /amd64|cloud/.test(name) ? "amd64" : "i386";
const tiny = Deno.readFileSync(`${folder}/tiny-${bits}.cpio.gz`);
const more = writeCpio([
  { kind: "file", path: "race", mode: 0o755, data: new TextEncoder().encode(PROGRAM) },
]);
// A second archive, behind zeroes and at a multiple of 4, adds to the first one's files.
const at = (Math.floor(tiny.length / 4) + 1) * 4, ramdisk = new Uint8Array(at + more.length);
ramdisk.set(tiny);
ramdisk.set(more, at);

await using hv = await Hypervisor.start({ cpu, cpus, memory: "512M" });
const dom = await hv.createDomain({
  name: "debian",
  type,
  kernel: `${folder}/vmlinux-${name}`,
  ramdisk,
  cmdline: "console=ttyS0 nokaslr mitigations=off cryptomgr.notests noisapnp quiet rdinit=/race",
  memory: "256M",
  vcpus,
});

/** Lets the guest run until its console shows a text anew; gives what it showed up to there. */
async function until(text: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let shown = "";
  const ends = [
    dom.console.onOutput((more) => {
      shown += more;
      if (shown.includes(text)) resolve();
    }),
    dom.onStop(() => reject(new Error(`the guest is ${dom.state}; its console:\n${shown}`))),
  ];
  dom.unpause();
  try {
    await promise;
  } finally {
    for (const end of ends) end();
  }
  dom.pause();
  return shown;
}

const began = performance.now();
await until(`READY ${vcpus}`);
const booted = hv.save();
console.log(
  `${name} with ${vcpus} vCPUs is up in ${((performance.now() - began) / 1000).toFixed(1)} s, ` +
    `and saved at instruction ${dom.statistics().instructions.toLocaleString("en")}`,
);

async function run(seed: number, turns: Turns): Promise<Found | undefined> {
  hv.load(booted);
  hv.interleave = { ...turns, seed };
  const [line, count] = (await until(" END")).match(/COUNT (\d*) END/) ?? [];
  if (!line || Number(count) === adds * vcpus) return undefined;
  return {
    instruction: dom.statistics().instructions,
    hash: hv.stateHash(),
    text: `${line.slice(0, -4)}, and ${vcpus} shells have added ${adds} each`,
  };
}

if (!await hunt(options, run)) Deno.exit(1);
