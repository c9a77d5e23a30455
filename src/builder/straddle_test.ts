/** Accesses that lie partly in memory and partly in a device, on every type, vendor and paging. */
import { assertEquals } from "@std/assert";
import { multibootImage, runImage, WAYS } from "../debug/testing/images.ts";

/** Across the adapter's lower and upper edge, and ports across the exit device. Results at 7100h. */
const STRADDLE = multibootImage(`
    mov dword [0x9fffe], 0x44434241
    mov ax, [0x9fffe]
    mov [0x7100], ax
    mov ax, [0xa0000]
    mov [0x7102], ax
    mov eax, [0x9ffff]
    mov [0x7104], eax
    mov dword [0xbffff], 0x34333231
    mov eax, [0xbffff]
    mov [0x7108], eax
    mov al, [0xbffff]
    mov [0x710c], al
    mov eax, [0xc0000]
    mov [0x7110], eax
    fld qword [values]
    fstp qword [0x9fffc]
    mov eax, [0x9fffc]
    mov [0x7114], eax
    mov eax, [0xa0000]
    mov [0x7118], eax
    mov dx, 0xf3
    mov eax, 0x01020304
    out dx, eax
    out dx, ax
    in eax, dx
    mov [0x711c], eax
    mov dx, 0xf4
    mov eax, 6
    out dx, eax
    hlt
  values:
    dd 0x11223344, 0x3ff55667`);

for (const way of WAYS) {
  Deno.test(`an access across a device's edge goes to both sides, ${way.join(" ")}`, async () => {
    const { dom, end } = await runImage(STRADDLE, way);
    assertEquals(end, "exit (status 13)");
    const u32 = (at: number) => dom.memory.u32(at);
    assertEquals([u32(0x7100), u32(0x7104) & 0xffffff], [0x44434241, 0x444342]);
    assertEquals([u32(0x7108), dom.memory.u8(0x710c)], [0x34333231, 0x31]);
    assertEquals(u32(0x7110) & 0xffffff, 0x343332);
    assertEquals([u32(0x7114), u32(0x7118)], [0x11223344, 0x3ff55667]);
    assertEquals(u32(0x711c), 0xffffffff);
  });
}
