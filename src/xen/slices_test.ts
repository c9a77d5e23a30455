import { assert, assertEquals } from "@std/assert";
import { type GuestDomain, subjectOf } from "../debug/domain.ts";
import { hostUnder, Hypervisor } from "../debug/hypervisor.ts";
import type { StartOptions } from "../debug/options.ts";
import { demoGuest } from "../builder/demo.ts";
import { randomSlices } from "./testing_slices.ts";
import { attention, oncePerPress, WORD } from "./world_attention.ts";

interface Way {
  readonly cpu: "intel" | "amd";
  readonly type: "bare" | "hvm";
  readonly paging: "hap" | "shadow";
}
const WAYS: readonly Way[] = (["intel", "amd"] as const).flatMap((cpu) =>
  (["bare", "hap", "shadow"] as const).map((how): Way => ({
    cpu,
    type: how === "bare" ? "bare" : "hvm",
    paging: how === "shadow" ? "shadow" : "hap",
  }))
);
/** Polls in a slice on average. */
const MEANS = [2, 7, 300] as const;

/** All that a run comes to. */
function told(hv: Hypervisor): unknown {
  const host = hostUnder(hv);
  return {
    hash: hv.stateHash(),
    scheduler: host.blocks.save().scheduler,
    domains: hv.domains.map((d) => [
      d.stateHash(),
      d.statistics(),
      d.console.text,
      d.state,
      subjectOf(d).inner.allotment,
      subjectOf(d).inner.vcpus.map(({ share, runstate }) => [share, runstate]),
    ]),
  };
}

/** Answers each prompt of the demo guest with the next key. */
function types(dom: GuestDomain, keys: string): void {
  let left = keys, line = "";
  dom.console.onOutput((text) => {
    line = (line + text).split("\n").at(-1)!;
    if (line !== "demo> " || !left) return;
    dom.console.write(left[0]);
    left = left.slice(1);
  });
}

/** Compares runs whose slices end by the clock, and at random. */
async function sameInSlices(
  run: (hv: Hypervisor, cut: () => void) => Promise<void>,
  options: StartOptions,
  means: readonly number[] = MEANS,
) {
  const ran = async (mean: number | undefined) => {
    await using hv = await Hypervisor.start(options);
    const slices = randomSlices(5, mean ?? 1);
    await run(hv, () => {
      if (mean !== undefined) hostUnder(hv).attention = slices;
    });
    return [told(hv), slices.count] as const;
  };
  const [wanted] = await ran(undefined);
  for (const mean of means) {
    const [got, count] = await ran(mean);
    assertEquals(got, wanted, `slices of ${mean} polls`);
    if (mean === 7) assert(count > 50, `${count} slices`);
  }
}

for (const { cpu, type, paging } of WAYS) {
  const name = `${cpu}, ${type === "bare" ? "bare" : paging}`;
  Deno.test(`a run is the same however it is cut into slices (${name})`, async () => {
    await sameInSlices(async (hv, cut) => {
      const dom = await hv.createDomain({
        name: "demo",
        type,
        paging,
        kernel: demoGuest().image,
        memory: "16M",
      });
      cut();
      types(dom, "fdtq");
      dom.unpause();
      await dom.ended;
    }, { cpu, memory: "64M" });
  });
}

for (const cpu of ["intel", "amd"] as const) {
  Deno.test(`so is a schedule: weights, a cap, a guest that waits (${cpu})`, async () => {
    await sameInSlices(async (hv, cut) => {
      cut();
      const all = [["one", {}], ["two", { weight: 700 }], ["three", { cap: 15, paging: "shadow" }]];
      for (const [name, more] of all as [string, object][]) {
        const kernel = demoGuest().image;
        const dom = await hv.createDomain({ name, kernel, memory: "16M", ...more });
        types(dom, name === "two" ? "f" : "fdt");
      }
      for (const d of hv.domains) d.unpause();
      // Others run while one stands at a stop.
      const [one, two] = hv.domains;
      const timer = demoGuest().symbols.find(({ name }) => name === "timer")!;
      for (let n = 0; n < 20; n++) await one.until("execute", { address: timer.address });
      await two.until("io");
      for (const d of hv.domains) d.pause();
    }, { cpu, memory: "128M" });
  });
}

for (const { cpu, type, paging } of WAYS) {
  const name = `${cpu}, ${type === "bare" ? "bare" : paging}`;
  Deno.test(`so are steps of every length, observed or not (${name})`, async () => {
    for (const observed of [false, true]) {
      await sameInSlices(
        async (hv, cut) => {
          const kernel = demoGuest().image;
          const dom = await hv.createDomain({ name: "demo", type, paging, kernel, memory: "16M" });
          cut();
          types(dom, "fdt");
          const put = demoGuest().symbols.find((it) => it.name === "put_char")!.address;
          if (observed) dom.trace("execute", { address: put }, () => {});
          for (let n = 0; n < 250; n++) await dom.vcpus[0].step(1 + n * n % 83);
        },
        { cpu, memory: "64M" },
        [7],
      );
    }
  });
}

for (const { cpu, type, paging } of WAYS.filter(({ type }) => type === "hvm")) {
  Deno.test(`whoever looks what is due before a window opens changes nothing (${cpu}, ${paging})`, async () => {
    const ran = async (looks: boolean) => {
      await using hv = await Hypervisor.start({ cpu, memory: "64M" });
      const kernel = demoGuest().image;
      const dom = await hv.createDomain({ name: "demo", type, paging, kernel, memory: "16M" });
      const host = hostUnder(hv), { inner, engine } = subjectOf(dom);
      types(dom, "fdt");
      inner.resume();
      for (let n = 0; host.now < 4e6; n++) {
        if (looks) engine!.changed = true;
        const ran = host.runOnce(Math.min(1 + 31 * n % 47, 4e6 - host.now));
        if (!ran && !host.idle()) break;
      }
      assert(inner.exits["interrupt-window"] > 0, JSON.stringify(inner.exits));
      return told(hv);
    };
    assertEquals(await ran(true), await ran(false));
  });
}

/** Code that is fetched from a device, below the reset vector: each instruction is decoded anew. */
const WINDOW = new Uint8Array(65536).fill(0x90); // nop
WINDOW.set([0x40, 0xe6, 0x80, 0xeb, 0xfb], 0xffe0); // inc ax; out 80h, al; jmp
WINDOW.set([0xeb, 0xee], 0xfff0); // jmp there

for (const { cpu, type, paging } of WAYS) {
  const name = `${cpu}, ${type === "bare" ? "bare" : paging}`;
  Deno.test(`code in a device gets on however it is cut (${name})`, async () => {
    await sameInSlices(
      async (hv, cut) => {
        const dom = await hv.createDomain({ type, paging, kernel: WINDOW, memory: "2M" });
        cut();
        await dom.vcpus[0].step(2000);
      },
      { cpu, memory: "64M" },
      [1, 7],
    );
  });
}

Deno.test("the event loop has its turn while a guest runs, and a pause is an entry of the world", async () => {
  for (const { cpu, type, paging } of WAYS) {
    await using hv = await Hypervisor.start({ cpu, memory: "64M" });
    const kernel = demoGuest().image;
    const dom = await hv.createDomain({ name: "demo", type, paging, kernel, memory: "16M" });
    dom.unpause();
    for (let n = 0; n < 5; n++) await new Promise((resolve) => setTimeout(resolve, 1));
    dom.pause();
    const { world, machine } = hostUnder(hv);
    const { kind, domain, position } = world.entries.at(-1)!;
    assertEquals([kind, domain, position.count], ["pause", dom.id, machine.cpu.count]);
    dom.pause();
    assertEquals(world.entries.at(-1)?.position, position, "it stands already");
  }
});

Deno.test("what a script takes its time for at a stop, or at the end, changes nothing", async () => {
  const timer = demoGuest().symbols.find(({ name }) => name === "timer")!.address;
  const told = async (wait: () => Promise<unknown>) => {
    await using hv = await Hypervisor.start({ memory: "128M" });
    for (const name of ["one", "two"]) {
      types(await hv.createDomain({ name, kernel: demoGuest().image, memory: "16M" }), "fdt");
    }
    const [one, two] = hv.domains, hashes: string[] = [];
    for (let n = 0; n < 30; n++) {
      await (n % 3 ? one : two).until("execute", { address: timer });
      await wait();
      hashes.push(hv.stateHash());
    }
    for (const dom of [one, two]) {
      dom.console.write("q");
      dom.unpause();
      await dom.ended;
      await wait();
      hashes.push(hv.stateHash());
    }
    return hashes;
  };
  const turns = () => new Promise((resolve) => setTimeout(resolve, 3));
  assertEquals(await told(turns), await told(() => Promise.resolve()));
});

Deno.test("a turn between slices sees a signal at once, however many slices follow each other", async () => {
  const started = performance.now();
  // The Worker needs turns of the event loop to start.
  for (attention.begin(); attention.words[WORD.ready] === 0 && performance.now() < started + 5e3;) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  let heard = false;
  const listener = () => void (heard = true);
  Deno.addSignalListener("SIGUSR2", listener);
  await new Promise((resolve) => setTimeout(resolve, 50)); // it listens from then on
  const slice = () => {
    for (const end = performance.now() + 2; performance.now() < end;);
    return attention.turn();
  };
  const turnsOf: number[] = [];
  for (let round = 0; round < 10; round++) {
    // At another turn of the runtime's own each time.
    for (let n = 0; n < 7 + round; n++) await slice();
    heard = false;
    Deno.kill(Deno.pid, "SIGUSR2");
    let turns = 0;
    for (; !heard && turns < 100; turns++) await slice();
    turnsOf.push(turns);
  }
  Deno.removeSignalListener("SIGUSR2", listener);
  attention.end();
  // Other work of the host may hold one of them up.
  assert(turnsOf.sort((a, b) => a - b)[5] <= 3, `turns until a signal was heard: ${turnsOf}`);
});

Deno.test("turns that wait at the same time all end", async () => {
  await Promise.all(Array.from({ length: 20 }, () => attention.turn()));
});

Deno.test("SIGINTs some milliseconds apart are one press of ctrl-C; later ones are another", async () => {
  let presses = 0;
  const signal = oncePerPress(() => void presses++);
  for (let i = 0; i < 3; i++) signal();
  assertEquals(presses, 1);
  await new Promise((resolve) => setTimeout(resolve, 80));
  for (let i = 0; i < 2; i++) signal();
  assertEquals(presses, 2);
});
