// Several domains on several processors: all have their turns, however long one was alone.
import { assert, assertEquals } from "@std/assert";
import { assemble } from "../machine/isa/encode.ts";
import { LONGEST_TURN } from "../xen/scheduler.ts";
import { subjectOf } from "./domain.ts";
import { hostUnder, Hypervisor } from "./hypervisor.ts";
import type { DomainOptions } from "./options.ts";
import { assembleKernel } from "./testing/hosts.ts";
import { Random } from "./testing/states.ts";

/** Rounds of each vCPU. */
const OWN = [0x7000, 0x7004] as const;
/** The first vCPU starts the second up; both count for ever. */
const KERNEL = assembleKernel(`
  mov edi, 0xfee00000
  mov dword [edi + 0x300], 0xc4500
  mov dword [edi + 0x300], 0xc4608
again:
  lock inc dword [${OWN[0]}]
  jmp again`).bytes;
/** At 8000h, in real mode. */
const SECOND = assemble(
  `xor ax, ax
  mov ds, ax
again:
  lock inc dword [${OWN[1]}]
  jmp again`,
  { mode: 16 },
).bytes;

async function counts(hv: Hypervisor, options: Partial<DomainOptions>) {
  const dom = await hv.createDomain({ kernel: KERNEL, memory: "4M", ...options });
  dom.memory.write(0x8000, SECOND);
  return { dom, inner: subjectOf(dom).inner, own: () => OWN.map((at) => dom.memory.u32(at)) };
}

for (const cpu of ["intel", "amd"] as const) {
  Deno.test(`who comes to a processor while another's runs alone has a turn there (${cpu})`, async () => {
    await using hv = await Hypervisor.start({ cpu, memory: "48M", cpus: 2 });
    const host = hostUnder(hv), one = await counts(hv, {});
    one.inner.resume();
    // Alone, in the midst of its leg.
    for (let n = 0; n < 20; n++) host.runOnce(1000);
    // Whoever was made meanwhile, and whoever stood.
    const two = await counts(hv, { vcpus: 2 });
    const beside = () => two.inner.vcpus.find(({ processor }) => processor.id === 1)!;
    assertEquals(one.inner.vcpus[0].processor.id, 0);
    for (let n = 0; n < 3; n++) {
      two.inner.resume();
      const { count } = beside(), from = host.machine.count;
      while (host.machine.count < from + 4 * LONGEST_TURN) host.runOnce(1000);
      assert(beside().count > count + LONGEST_TURN / 2, `${beside().count - count}`);
      two.inner.pause();
      for (let n = 0; n < 20; n++) host.runOnce(1000);
    }
  });

  Deno.test(`two domains of two vCPUs share two processors, by their weights and however they are cut (${cpu})`, async () => {
    const start = async () => {
      const hv = await Hypervisor.start({ cpu, memory: "48M", cpus: 2 });
      const both = [
        await counts(hv, { vcpus: 2, weight: 512 }),
        await counts(hv, { vcpus: 2, weight: 256, paging: "shadow" }),
      ];
      for (const { inner } of both) inner.resume();
      return { hv, both, host: hostUnder(hv), [Symbol.asyncDispose]: () => hv.close() };
    };
    await using often = await start();
    await using seldom = await start();
    const random = new Random(11);
    const run = ({ host }: typeof often, most: () => number) => {
      const end = 40_000_000;
      while (host.machine.count < end) host.runOnce(Math.min(most(), end - host.machine.count));
    };
    run(often, () => 1 + random.below(20_000));
    run(seldom, () => Infinity);
    const of = ({ both }: typeof often) =>
      both.map(({ inner, own }) => [inner.vcpus.map(({ count }) => count), own()]);
    assertEquals(of(often), of(seldom));
    for (const { hv, both } of [often, seldom]) {
      for (const { inner } of both) inner.pause();
      assert(hv.stateHash());
    }
    assertEquals(often.hv.stateHash(), seldom.hv.stateHash());
    const [[heavy], [light]] = of(seldom);
    for (const n of [0, 1]) {
      const share = heavy[n] / (heavy[n] + light[n]);
      assert(Math.abs(share - 2 / 3) < 0.05, `vCPU ${n}: ${share}`);
    }
  });
}
