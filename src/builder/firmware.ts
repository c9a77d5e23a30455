/**
 * What a PC's firmware leaves behind in memory and in its chips when it hands over to a kernel. A
 * kernel that is entered directly finds it as if firmware had run; a ROM is the firmware.
 */
import { fixed, offsetOf, sizeOf } from "../abi/layout.ts";
import {
  BDA,
  BDA_AT,
  BIOS_ENTRY,
  EQUIPMENT,
  IVT_SIZE,
  MODEL_AT,
  TICKS_PER_DAY,
} from "../abi/boot/bios.ts";
import { PC } from "../abi/boot/e820.ts";
import { FLOAT_INIT } from "../abi/x86/float.ts";
import { BOOTS } from "../abi/boot/images.ts";
import { assemble } from "../machine/isa/encode.ts";
import type { LoadedGuest } from "./load.ts";
import type { GuestMemory, Region } from "./placement.ts";

/** Where a field of the BIOS data area stands, in bytes from its start. */
const bdaAt = (field: keyof typeof BDA["fields"]) => offsetOf(BDA, field, 64);

/**
 * The code behind the vectors, by its offset in segment F000h. There is no service to call: what
 * fails by a carry flag fails, the rest returns; interrupts are counted or passed over, and ended.
 */
const CODE: Readonly<Record<number, string>> = {
  // A jump to the reset vector asks the keyboard controller for a reset.
  [BIOS_ENTRY.post]: `
    mov al, 0xfe
    out 0x64, al
    hlt`,
  [BIOS_ENTRY.int13]: `
    mov ah, 1
    stc
    retf 2`,
  [BIOS_ENTRY.int15]: `
    mov ah, 0x86
    stc
    retf 2`,
  [BIOS_ENTRY.int11]: `
    push ds
    mov ax, 0x40
    mov ds, ax
    mov ax, [${bdaAt("equipment")}]
    pop ds
    iret`,
  [BIOS_ENTRY.int12]: `
    push ds
    mov ax, 0x40
    mov ds, ax
    mov ax, [${bdaAt("memory_kilobytes")}]
    pop ds
    iret`,
  [BIOS_ENTRY.timer]: `
    push ds
    push eax
    mov ax, 0x40
    mov ds, ax
    mov eax, [${bdaAt("ticks")}]
    inc eax
    cmp eax, ${TICKS_PER_DAY}
    jb same_day
    xor eax, eax
  same_day:
    mov [${bdaAt("ticks")}], eax
    mov al, 0x20
    out 0x20, al
    pop eax
    pop ds
    iret`,
  [BIOS_ENTRY.iret]: `
    iret
  slave:
    push ax
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    pop ax
    iret
  coprocessor:
    push ax
    mov al, 0
    out 0xf0, al
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    pop ax
    int 2
    iret
  master:
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret`,
  [BIOS_ENTRY.reset]: `jmp 0xf000:${BIOS_ENTRY.post}`,
};

const ROM_SEGMENT = PC.rom >> 4;
/** Vectors of IRQ 0 to 7 and 8 to 15, as a PC's firmware programs its interrupt controllers. */
const MASTER_VECTOR = 0x08, SLAVE_VECTOR = 0x70;

/** Segment F000h from its first code on, and where its labels are. */
function makeRom(): { start: number; bytes: Uint8Array; labels: ReadonlyMap<string, bigint> } {
  const start = Math.min(...Object.keys(CODE).map(Number));
  const bytes = new Uint8Array(0x10000 - start);
  const labels = new Map<string, bigint>();
  for (const [offset, source] of Object.entries(CODE)) {
    const code = assemble(source, { mode: 16, origin: Number(offset) });
    bytes.set(code.bytes, Number(offset) - start);
    for (const [name, at] of code.symbols) labels.set(name, at);
  }
  bytes.set(new TextEncoder().encode("01/01/26"), BIOS_ENTRY.date - start);
  bytes[BIOS_ENTRY.model - start] = MODEL_AT;
  return { start: PC.rom + start, bytes, labels };
}

function makeVectors(labels: ReadonlyMap<string, bigint>): Uint8Array {
  const bytes = new Uint8Array(IVT_SIZE);
  const view = new DataView(bytes.buffer);
  const set = (vector: number, offset: number) =>
    view.setUint32(4 * vector, ROM_SEGMENT * 0x10000 + offset, true);
  for (let vector = 0; vector < 256; vector++) set(vector, BIOS_ENTRY.iret);
  for (let irq = 0; irq < 8; irq++) {
    set(MASTER_VECTOR + irq, Number(labels.get("master")));
    set(SLAVE_VECTOR + irq, Number(labels.get("slave")));
  }
  set(MASTER_VECTOR, BIOS_ENTRY.timer);
  // IRQ 13 is what was NMI on the PC before the AT.
  set(SLAVE_VECTOR + 5, Number(labels.get("coprocessor")));
  set(0x11, BIOS_ENTRY.int11);
  set(0x12, BIOS_ENTRY.int12);
  set(0x13, BIOS_ENTRY.int13);
  set(0x15, BIOS_ENTRY.int15);
  // Pointers to tables (video, diskette, fonts, disks) that nobody made, and the user's own vectors.
  for (const vector of [0x1d, 0x1e, 0x1f, 0x41, 0x43, 0x46]) view.setUint32(4 * vector, 0, true);
  for (let vector = 0x60; vector < 0x68; vector++) view.setUint32(4 * vector, 0, true);
  return bytes;
}

/** The data area: one serial port, a keyboard, a VGA in text mode 3, the ticks of the day. */
function makeBda(unixTime: number): Uint8Array {
  const bytes = new Uint8Array(sizeOf(BDA, 64));
  const bda = fixed(BDA, bytes);
  bda.setAll({
    com1: 0x3f8,
    ebda_segment: PC.ebda >> 4,
    equipment: EQUIPMENT,
    memory_kilobytes: PC.ebda >> 10,
    keyboard_head: 0x1e,
    keyboard_tail: 0x1e,
    keyboard_buffer_start: 0x1e,
    keyboard_buffer_end: 0x3e,
    keyboard_type: 0x10, // 101 or 102 keys
    video_mode: 3,
    video_columns: 80,
    video_page_size: 0x1000,
    video_rows: 24, // less one
    character_height: 16,
    cursor_shape: 0x0607,
    crt_port: 0x3d4,
    crt_mode: 0x29,
    crt_palette: 0x30,
    video_control: 0x60,
    video_switches: 0xf9,
    video_display: 0x51,
    ticks: Math.floor((unixTime % 86400) * 1193182 / 65536),
  });
  bytes.fill(0x14, bdaAt("lpt1_timeout"), bdaAt("lpt1_timeout") + 4);
  bytes.fill(0x0a, bdaAt("com1_timeout"), bdaAt("com1_timeout") + 4);
  return bytes;
}

/**
 * Writes interrupt vectors, BIOS data area, the extended one's size, and the ROM's end with the code
 * behind the vectors. Before the kernel: what it puts there itself stands.
 *
 * @param unixTime Seconds since 1970 at the guest's start, for the ticks of the day.
 */
export function writeFirmware(memory: GuestMemory, unixTime: number): Region[] {
  const rom = makeRom();
  const parts = [
    { what: "interrupt vectors", start: 0, bytes: makeVectors(rom.labels) },
    { what: "BIOS data area", start: BDA_AT, bytes: makeBda(unixTime) },
    { what: "extended BIOS data area", start: PC.ebda, bytes: Uint8Array.of(1) }, // KB
    { what: "BIOS", start: rom.start, bytes: rom.bytes },
  ];
  return parts.map(({ what, start, bytes }) => {
    memory.write(start, bytes);
    return { what, start, end: start + bytes.length };
  });
}

/** Ports and bytes by which firmware sets the chips up. */
const PORTS: readonly (readonly [port: number, value: number])[] = [
  // Interrupt controllers: edges, cascaded, vectors 08h and 70h; let through are timer, keyboard,
  // mouse and coprocessor.
  ...([[0x20, 0x11], [0x21, MASTER_VECTOR], [0x21, 4], [0x21, 1], [0x21, 0xf8]] as const),
  ...([[0xa0, 0x11], [0xa1, SLAVE_VECTOR], [0xa1, 2], [0xa1, 1], [0xa1, 0xcf]] as const),
  // Counter 0: square wave of 18.2 Hz; counter 1: a refresh every 15 us.
  ...([[0x43, 0x36], [0x40, 0], [0x40, 0], [0x43, 0x54], [0x41, 18]] as const),
];

/** Lets none of the interrupt controllers' lines through. */
const MASKED: typeof PORTS = [[0x21, 0xff], [0xa1, 0xff]];

/**
 * What firmware has done to processor and chips before it hands over; a ROM does it itself.
 *
 * @param xen the guest knows Xen
 */
export function afterFirmware(
  cpu: { setFloat(words: typeof FLOAT_INIT): void },
  board: { readonly bus: { write(port: number, size: 1, value: number): void } },
  loaded: LoadedGuest,
  xen = false,
): void {
  if (!BOOTS[loaded.boot].firmware) return;
  cpu.setFloat(FLOAT_INIT);
  for (const [port, value] of PORTS) board.bus.write(port, 1, value);
  // A PVH domain of Xen's has no such chips: it may set IF, and is interrupted by nothing of theirs.
  if (!xen || loaded.boot !== "pvh") return;
  for (const [port, value] of MASKED) board.bus.write(port, 1, value);
}
