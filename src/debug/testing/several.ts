/** A guest of several vCPUs: all of them call one function for ever, and count what they do in it. */
import { SymbolTable } from "../../builder/symbols.ts";
import type { GuestDomain } from "../domain.ts";
import { Hypervisor } from "../hypervisor.ts";
import type { StartOptions } from "../options.ts";
import type { Configuration } from "./hosts.ts";
import { assembleKernel, startUpCode } from "./prologue.ts";

/** Where all count together, and each for itself. */
export const COUNTS = { all: 0x7000, own: 0x7100 } as const;
const GDT = 0x7e00, POINTER = 0x7f00, UP = 0x7004;

const code = (others: number) =>
  assembleKernel(`
  mov esp, 0x6000
  mov edi, 0xfee00000
  mov dword [edi + 0x300], 0xc4500
  mov dword [edi + 0x300], 0xc4608
await:
  pause
  cmp dword [${UP}], ${others}
  jne await
again:
  call work
  jmp again
work:
  push ebp
  mov ebp, esp
  mov eax, 1
  cpuid
  shr ebx, 24
count:
  lock inc dword [${COUNTS.all}]
  lock inc dword [ebx * 4 + ${COUNTS.own}]
  pop ebp
  ret
other:
  mov ax, 16
  mov ds, ax
  mov ss, ax
  mov eax, 1
  cpuid
  shr ebx, 24
  shl ebx, 8
  mov esp, 0x6000
  sub esp, ebx
  lock inc dword [${UP}]
  jmp again`);

const words = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer);

/** A host with the guest before its first instruction; with short turns if nothing else is said. */
export async function severalOf(
  { cpu, paging }: Configuration,
  vcpus: number,
  more: Partial<StartOptions> = {},
): Promise<{ hv: Hypervisor; dom: GuestDomain } & AsyncDisposable> {
  const hv = await Hypervisor.start({
    cpu,
    memory: "24M",
    interleave: { min: 1, max: 20 },
    ...more,
  });
  const { bytes, symbols } = code(vcpus - 1);
  const dom = await hv.createDomain({
    name: "guest",
    type: paging === "bare" ? "bare" : "hvm",
    paging: paging === "bare" ? undefined : paging,
    kernel: bytes,
    memory: "4M",
    vcpus,
  });
  const named = [...symbols].filter(([, at]) => at >= 0x10_0000n);
  dom.setSymbols(
    new SymbolTable("the guest", named.map(([name, address]) => ({ name, address }))),
  );
  dom.memory.write(0x8000, startUpCode(POINTER, Number(symbols.get("other"))));
  dom.memory.write(GDT, words(0, 0, 0xffff, 0xcf9b00, 0xffff, 0xcf9300));
  dom.memory.write(POINTER, words(GDT << 16 | 23, 0));
  return { hv, dom, [Symbol.asyncDispose]: () => hv.close() };
}
