// Instructions that raise an event: INT n, INT3, INTO and INT1 are executed, and counted, once, whatever
// their delivery meets on its way and whoever looks on.
import { assertEquals } from "@std/assert";
import {
  assembleKernel,
  type Configuration,
  configurations,
  hostOf,
} from "../debug/testing/hosts.ts";
import { CR4 } from "../abi/x86/cr.ts";
import { flat, gates, oneToOne, pagingOn } from "../debug/testing/prologue.ts";

const STACK = 0x28_0000, IDT = 0x2a_0000, GDT = 0x2b_0000;
const PD = 0x30_0000, PT = 0x30_1000, SPARE_PT = 0x30_2000;
const ENTRY = (at: number) => PT + 4 * (at >>> 12);

/** What comes right before the event: a page of its delivery has no shadow, or is no memory. */
const BEFORE: Readonly<Record<string, string>> = {
  "nothing": "",
  "the stack's page": anew(STACK - 4096),
  "the IDT's page": anew(IDT),
  "the GDT's page": anew(GDT),
  "all three": anew(STACK - 4096) + anew(IDT) + anew(GDT),
  "a stack in a page table": `  mov esp, ${SPARE_PT + 0x800}\n`,
  "a stack in a device": `  mov esp, 0xd0000100\n`,
};
/** Takes a page's entry away and gives it back. */
function anew(at: number): string {
  return `  mov eax, [${ENTRY(at)}]
  mov dword [${ENTRY(at)}], 0
  mov [${ENTRY(at)}], eax
  invlpg [${at}]\n`;
}
const EVENTS: Readonly<Record<string, string>> = {
  "int 30h": "int 0x30",
  "int3": "int3",
  "into": "mov eax, 0x7fffffff\n  inc eax\n  into",
  "int1": "db 0xf1",
  "ud2": "ud2",
  "divide": "xor edx, edx\n  xor ecx, ecx\n  div ecx",
  "page fault": "mov eax, [0xc0000000]",
  // Its own delivery fails: it is no instruction that was executed.
  "int beyond the IDT": "int 0x77",
};

let labels = 0;
const each = (before: string, event: string): string => {
  const behind = `behind${labels++}`;
  return `  mov esp, ${STACK}\n  mov ebp, ${behind}\n${before}  ${event}\n${behind}:\n`;
};

const { bytes: image, symbols: at } = assembleKernel(`
  cli
  mov esp, ${STACK}
  mov esi, gdt
  mov edi, ${GDT}
  mov ecx, 24
  rep movsb
${flat()}
${gates(IDT, "handler", 64)}
  lidt [idtr]
${oneToOne(PT, 3)}
  mov dword [${PD}], ${PT + 3}
  mov dword [${PD + 4}], ${SPARE_PT + 3}
  mov dword [${PD + 4 * 0x340}], 0xd0000083
${pagingOn(PD, CR4.PSE)}
  ; the spare table is one in use
  mov dword [${SPARE_PT}], 3
  mov eax, [0x400000]
${Object.values(BEFORE).map((b) => Object.values(EVENTS).map((e) => each(b, e)).join("")).join("")}
  mov dx, 0xf4
  mov eax, 0
  out dx, eax
  hlt
handler:
  mov esp, ${STACK}
  jmp ebp
gdt:
  dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:
  dw 23
  dd ${GDT}
idtr:
  dw 511
  dd ${IDT}
`);

/** Where each event was delivered, and how many instructions there were before. */
async function delivered(way: Configuration, look: "handler" | "step" | "exceptions") {
  await using host = await hostOf(way, image);
  const { dom } = host, told: string[] = [];
  if (look === "step") {
    dom.trace("step", {}, ({ regs, position }) => {
      if (regs.rip === at.get("handler")) told.push(`${position.count} ${regs.rbp.toString(16)}`);
    });
  } else {
    dom.trace("execute", { address: at.get("handler")! }, ({ regs, position }) => {
      told.push(`${position.count} ${regs.rbp.toString(16)}`);
    });
  }
  if (look === "exceptions" && way.paging !== "bare") {
    dom.trace("exception", {});
    if (way.cpu === "amd") {
      dom.trace("software-interrupt", {});
      dom.trace("icebp", {});
    }
  }
  await dom.continue();
  told.push(`${dom.vcpus[0].position.count} ${dom.state}`);
  return told;
}

const expected = delivered({ cpu: "intel", paging: "bare" }, "handler");
for (const way of configurations) {
  for (const look of ["handler", "step", "exceptions"] as const) {
    Deno.test(`instructions that raise an event are counted once: ${way.cpu}, ${way.paging}, ${look}`, async () => {
      const told = await expected;
      assertEquals(told.length, 1 + Object.keys(BEFORE).length * Object.keys(EVENTS).length);
      assertEquals(await delivered(way, look), told);
    });
  }
}
