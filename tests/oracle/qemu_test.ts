import { assertEquals } from "@std/assert";
import { changes, Qemu, type QemuState, unavailable } from "./qemu.ts";

/** Bytes from hexadecimal text; what follows ";" on a line is a remark. */
function image(listing: string): Uint8Array {
  return Uint8Array.fromHex(listing.replace(/;.*$/gm, "").replace(/\s+/g, ""));
}

/** Real mode to protected mode, and a segment load that faults; at 0x7c00. */
const ENTRY = image(`
  fa                   ; 7c00 cli
  0f 01 16 80 7c       ; 7c01 lgdt [0x7c80]
  0f 01 1e 88 7c       ; 7c06 lidt [0x7c88]
  0f 20 c0             ; 7c0b mov eax, cr0
  0c 01                ; 7c0e or al, 1
  0f 22 c0             ; 7c10 mov cr0, eax
  ea 18 7c 08 00       ; 7c13 jmp 8:0x7c18
  66 b8 10 00          ; 7c18 mov ax, 0x10    (32-bit code from here)
  8e d0                ; 7c1c mov ss, ax
  8e d8                ; 7c1e mov ds, ax
  bc 00 70 00 00       ; 7c20 mov esp, 0x7000
  66 b8 1b 00          ; 7c25 mov ax, 0x1b
  8e c0                ; 7c29 mov es, ax      #NP: descriptor 3 is not present
`);

const TABLES = image(`
  1f 00 00 7d 00 00 00 00                          ; 7c80 GDT at 7d00, limit 1f
  ff 00 00 7e 00 00 00 00                          ; 7c88 IDT at 7e00, limit ff
`);

const GDT = image(`
  00 00 00 00 00 00 00 00
  ff ff 00 00 00 9a cf 00                          ; 08 code, flat
  ff ff 00 00 00 92 cf 00                          ; 10 data, flat
  ff ff 00 00 00 72 cf 00                          ; 18 data, DPL 3, not present
`);

/** 32 interrupt gates to 8:0x7f80. */
const IDT = image("80 7f 08 00 00 8e 00 00".repeat(32));

/** Loads the image and steps it, at most `limit` instructions or until it halts. */
async function trace(qemu: Qemu, limit: number): Promise<QemuState[]> {
  const parts: [number, Uint8Array][] = [[0x7c00, ENTRY], [0x7c80, TABLES], [0x7d00, GDT], [
    0x7e00,
    IDT,
  ]];
  for (const [address, bytes] of parts) await qemu.load(address, bytes);
  await qemu.load(0x7f80, Uint8Array.of(0xf4)); // hlt
  await qemu.set({ cs: 0n, eip: 0x7c00n, ds: 0n, ss: 0n, esp: 0x7000n });
  const states = [await qemu.state()];
  while (states.length <= limit && states.at(-1)!.registers.eip !== 0x7f80n) {
    states.push(await qemu.step());
  }
  return states;
}

const missing = unavailable();
if (missing) console.warn(`skipped: ${missing}`);

Deno.test({
  name: `QEMU traces entry to protected mode and a faulting segment load${
    missing ? ` (skipped: ${missing})` : ""
  }`,
  ignore: missing !== undefined,
  async fn() {
    await using qemu = await Qemu.start();
    const states = await trace(qemu, 40);
    if (Deno.env.get("ORACLE_TRACE")) {
      states.slice(1).forEach((s, n) => console.log(changes(states[n], s)));
    }
    const at = (eip: bigint) => states.find((s) => s.registers.eip === eip)!;
    assertEquals(at(0x7c06n).gdt, { base: 0x7d00, wideBase: 0x7d00n, limit: 0x1f });
    assertEquals(at(0x7c0bn).idt, { base: 0x7e00, wideBase: 0x7e00n, limit: 0xff });
    assertEquals(at(0x7c18n).segments.cs, {
      selector: 8,
      base: 0,
      wideBase: 0n,
      limit: 0xffff_ffff,
      flags: 0xcf9a00,
    });
    assertEquals(at(0x7c18n).registers.cr0 & 1n, 1n);
    const last = states.at(-1)!;
    assertEquals(last.registers.eip, 0x7f80n);
    assertEquals(last.segments.es.selector, 0); // unchanged by the fault
    const frame = new DataView((await qemu.read(0x6ff0, 16)).buffer);
    // Error code: selector with RPL cleared; then EIP and CS of the faulting instruction.
    assertEquals([0, 4, 8].map((n) => frame.getUint32(n, true)), [0x18, 0x7c29, 8]);
  },
});

Deno.test({
  name: "QEMU's paging: CR3 and CR0.PG set, the monitor shows the mapping",
  ignore: missing !== undefined,
  async fn() {
    await using qemu = await Qemu.start({ machine: "pc" });
    await qemu.load(0x1000, Uint8Array.of(0x83, 0, 0, 0)); // 4 MB page at 0: P, RW, PS
    await qemu.set({ cr4: 0x10n, cr3: 0x1000n, cr0: 0x8000_0011n });
    const state = await qemu.state();
    assertEquals([state.registers.cr0, state.registers.cr3], [0x8000_0011n, 0x1000n]);
    assertEquals(
      (await qemu.monitor("info tlb")).trim().split("\n")[0].includes("0000000000000000"),
      true,
    );
  },
});
