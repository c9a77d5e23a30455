// why() tells of the guest's own exceptions, and of no others: those of shadow paging, of virtual-8086
// mode and of the neighbour stay out of it.
import { assertEquals, assertMatch } from "@std/assert";
import type { GuestDomain } from "../domain.ts";
import { Hypervisor } from "../hypervisor.ts";
import { pagedRom } from "../testing/rom.ts";

const WAYS = [
  { type: "bare", cpu: "intel", paging: "hap" },
  { type: "bare", cpu: "amd", paging: "hap" },
  { type: "hvm", cpu: "intel", paging: "hap" },
  { type: "hvm", cpu: "intel", paging: "shadow" },
  { type: "hvm", cpu: "amd", paging: "hap" },
  { type: "hvm", cpu: "amd", paging: "shadow" },
] as const;

async function guests(way: typeof WAYS[number], programs: readonly string[]) {
  const hv = await Hypervisor.start({ cpu: way.cpu, memory: "32M", seed: 1 });
  const doms: GuestDomain[] = [];
  for (const program of programs) {
    const { type, paging } = way, kernel = pagedRom(program).image;
    doms.push(await hv.createDomain({ type, paging, kernel, memory: "4M" }));
  }
  return { hv, doms, [Symbol.asyncDispose]: () => hv.close() };
}

const NO_HANDLERS = "\n  mov word [0x22000], 0\n  lidt [0x22000]\n";

for (const way of WAYS) {
  const name = `${way.cpu}/${way.type === "bare" ? "bare" : way.paging}`;
  const why = async (program: string) => {
    await using run = await guests(way, [program]);
    const stop = await run.doms[0].continue();
    assertEquals(stop?.kind, "end");
    const { text, check, details } = run.doms[0].vcpus[0].why();
    return [text, check, ...details];
  };

  Deno.test(`MONITOR and MWAIT are not there: no bit, no leaf, #UD, and why() says so (${name})`, async () => {
    for (const instruction of ["monitor", "mwait"]) {
      const program = `${NO_HANDLERS}
        mov eax, 1
        cpuid
        and ecx, 8
        mov esi, ecx
        mov eax, 5
        xor ecx, ecx
        cpuid
        or eax, ebx
        or esi, eax
        xor ecx, ecx
        xor edx, edx
        mov eax, 0x90000
        test esi, esi
        jnz shown
        ${instruction}
      shown:
        int3`;
      const [text, , at] = await why(program);
      assertEquals(text, "#UD: the CPUID of this guest does not show monitor");
      assertMatch(at, new RegExp(`^at .*: ${instruction}\\b`));
    }
  });

  Deno.test(`why() after the end tells of the guest's #PF, by its own tables (${name})`, async () => {
    const ends: [string, string, RegExp][] = [
      // Not present; read-only; a write to what is not there at the upper level.
      [
        "mov dword [0x101200], 0\n  mov eax, [0x80004]",
        "page.present",
        /^#PF\(0x0\): page 0x80004: entry 0x0 /,
      ],
      [
        "mov dword [0x101200], 0x80001\n  mov eax, cr0\n  or eax, 0x10000\n  mov cr0, eax\n  mov [0x80004], eax",
        "page.write",
        /^#PF\(0x3\): page 0x80004: a write to a read-only page/,
      ],
      ["mov [0x500008], eax", "page.present", /^#PF\(0x2\): page 0x500008: entry 0x0 /],
    ];
    for (const [instructions, wanted, words] of ends) {
      // Pages are used first, so that shadows are filled, and after it too.
      const program = `${NO_HANDLERS}  mov dword [0x90000], 1\n  ${instructions}\n`;
      const [text, check] = await why(program);
      assertMatch(text, words);
      assertEquals(check, wanted);
    }
  });

  Deno.test(`why() tells of exceptions that the hypervisor gives, and where (${name})`, async () => {
    const program = `${NO_HANDLERS}  mov ecx, 0xc0000080\n  xor edx, edx\n  mov eax, 2\n  wrmsr\n`;
    const [text, , at, when] = await why(program);
    assertMatch(text, /^#GP\(0x0\)/);
    assertMatch(at, /: wrmsr$/);
    assertEquals(when, "just now");
  });

  Deno.test(`why() knows no exception where the guest had none (${name})`, async () => {
    await using run = await guests(way, [
      "  mov dword [0x90000], 1\n  mov al, 0\n  out 0xf4, al\n  hlt\n",
    ]);
    await run.doms[0].continue();
    assertEquals(run.doms[0].vcpus[0].why().text.startsWith("#"), false);
  });

  if (way.type !== "bare") {
    Deno.test(`why() keeps two domains' exceptions apart (${name})`, async () => {
      const loop = "again:\n  inc eax\n  jmp again\n";
      await using run = await guests(way, [`  ud2\n${loop}`, loop]);
      const [first, second] = run.doms;
      await first.vcpus[0].step(9000);
      await second.vcpus[0].step(9000);
      assertMatch(first.vcpus[0].why().text, /^#UD/);
      assertEquals(second.vcpus[0].why().text.startsWith("#"), false);
      const [, when] = first.vcpus[0].why().details;
      await second.vcpus[0].step(10);
      assertEquals(first.vcpus[0].why().details[1], when);
    });
  }
}
