/**
 * A VGA in text mode: the registers as they are read and written, the frame buffer as plain bytes.
 * Source: IBM PS/2 Hardware Interface Technical Reference, Video Subsystem; code page 437: IBM.
 *
 * @module
 */
import {
  type DeviceContext,
  DeviceModel,
  hex,
  type PortRange,
  type Ranges,
  type Size,
} from "./device.ts";

/** State of {@linkcode Vga}. */
export interface VgaState {
  /** A0000h to BFFFFh, as the processor sees it. */
  memory: Uint8Array;
  misc: number;
  feature: number;
  sequencerIndex: number;
  sequencer: Uint8Array;
  graphicsIndex: number;
  graphics: Uint8Array;
  crtcIndex: number;
  crtc: Uint8Array;
  attributeIndex: number;
  attribute: Uint8Array;
  /** The next write to 3C0h is data. */
  attributeData: boolean;
  dacMask: number;
  dacRead: number;
  dacWrite: number;
  /** Which of red, green, blue is next; reads and writes share it. */
  dacColour: number;
  /** The DAC's last address write was for reading (port 3C7h's answer). */
  dacReading: boolean;
  palette: Uint8Array;
}

/** One line of the characters of a code page 437 screen. */
const cp437 = "\0☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼" +
  " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂" +
  "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌" +
  "█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0";
const glyphs = [...cp437];

/** Registers of mode 3 (80 x 25, 9 x 16 characters) as the video BIOS leaves them. */
const mode3 = {
  misc: 0x67,
  sequencer: [0x03, 0x00, 0x03, 0x00, 0x02],
  // deno-fmt-ignore
  crtc: [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00,
    0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
  ],
  graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff],
  // deno-fmt-ignore
  attribute: [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f,
    0x0c, 0x00, 0x0f, 0x08, 0x00,
  ],
};
/** Writable bits per register; others are kept as written. */
const crtcRegisters = 0x19, attributeRegisters = 0x15;
/** Order of the text attribute's colours (blue is bit 0) in ANSI's (red is bit 0). */
const ansi = [0, 4, 2, 6, 1, 5, 3, 7];
/** A frame is 449 lines of 31.77 us, 400 of them visible (70 Hz). */
const lineTime = 31778, visibleLines = 400, totalLines = 449;

function padded(values: readonly number[], length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(values);
  return bytes;
}

/** The 64 colours that mode 3's attribute registers choose from, 6 bits per component. */
function defaultPalette(): Uint8Array {
  const palette = new Uint8Array(768);
  for (let i = 0; i < 64; i++) {
    for (let part = 0; part < 3; part++) {
      const [high, low] = [i >> 2 - part & 1, i >> 5 - part & 1];
      palette[i * 3 + part] = high * 0x2a + low * 0x15;
    }
  }
  return palette;
}

function stateAfterReset(): VgaState {
  const memory = new Uint8Array(0x20000);
  for (let i = 0x18000; i < 0x20000; i += 2) {
    memory[i] = 0x20;
    memory[i + 1] = 0x07;
  }
  return {
    memory,
    misc: mode3.misc,
    feature: 0,
    sequencerIndex: 0,
    sequencer: padded(mode3.sequencer, 8),
    graphicsIndex: 0,
    graphics: padded(mode3.graphics, 16),
    crtcIndex: 0,
    crtc: padded(mode3.crtc, crtcRegisters),
    attributeIndex: 0x20,
    attribute: padded(mode3.attribute, attributeRegisters),
    attributeData: false,
    dacMask: 0xff,
    dacRead: 0,
    dacWrite: 0,
    dacColour: 0,
    dacReading: false,
    palette: defaultPalette(),
  };
}

/**
 * The video adapter at ports 3B0h to 3DFh with memory at A0000h, left in mode 3 as a BIOS leaves it.
 *
 * Memory is plain: planes, latches and raster operations are not modelled, so graphics modes show
 * nothing. Text at B8000h is exact.
 */
export class Vga extends DeviceModel<VgaState> {
  readonly name = "vga";
  readonly version = 1;
  override readonly ranges: Ranges = {
    sequencerIndex: [0, 7],
    graphicsIndex: [0, 15],
    dacColour: [0, 2],
  };
  override readonly ports: readonly PortRange[] = [
    [0x3b4, 0x3b5],
    [0x3ba, 0x3ba],
    [0x3c0, 0x3cf],
    [0x3d4, 0x3d5],
    [0x3da, 0x3da],
  ];
  override readonly mmio: readonly { readonly base: number; readonly size: number }[] = [
    { base: 0xa0000, size: 0x20000 },
  ];

  constructor(readonly context: DeviceContext) {
    super(stateAfterReset());
  }

  /** The CRTC and status ports are at 3Dxh when misc bit 0 is set, at 3Bxh otherwise. */
  answers(port: number): boolean {
    if (port >= 0x3c0 && port < 0x3d0) return true;
    return (port >= 0x3d0) === ((this.state.misc & 1) !== 0);
  }

  read(port: number, _size: Size): number {
    const s = this.state;
    if (!this.answers(port)) return 0xff;
    switch (port) {
      case 0x3c0:
        return s.attributeIndex;
      case 0x3c1:
        return s.attribute[s.attributeIndex & 0x1f] ?? 0;
      case 0x3c2:
        return 0x10; // switch sense: a colour monitor
      case 0x3c4:
        return s.sequencerIndex;
      case 0x3c5:
        return s.sequencer[s.sequencerIndex];
      case 0x3c6:
        return s.dacMask;
      case 0x3c7:
        return s.dacReading ? 3 : 0;
      case 0x3c8:
        return s.dacWrite;
      case 0x3c9:
        return this.readPalette();
      case 0x3ca:
        return s.feature;
      case 0x3cc:
        return s.misc;
      case 0x3ce:
        return s.graphicsIndex;
      case 0x3cf:
        return s.graphics[s.graphicsIndex];
      case 0x3b4:
      case 0x3d4:
        return s.crtcIndex;
      case 0x3b5:
      case 0x3d5:
        return s.crtc[s.crtcIndex] ?? 0;
      case 0x3ba:
      case 0x3da:
        return this.readStatus();
    }
    return 0xff;
  }

  write(port: number, _size: Size, value: number): void {
    const s = this.state;
    if (!this.answers(port)) return;
    switch (port) {
      case 0x3c0:
        return this.writeAttribute(value);
      case 0x3c2:
        s.misc = value;
        return;
      case 0x3c4:
        s.sequencerIndex = value & 7;
        return;
      case 0x3c5:
        s.sequencer[s.sequencerIndex] = value;
        return;
      case 0x3c6:
        s.dacMask = value;
        return;
      case 0x3c7:
        Object.assign(s, { dacRead: value, dacColour: 0, dacReading: true });
        return;
      case 0x3c8:
        Object.assign(s, { dacWrite: value, dacColour: 0, dacReading: false });
        return;
      case 0x3c9:
        return this.writePalette(value);
      case 0x3ce:
        s.graphicsIndex = value & 15;
        return;
      case 0x3cf:
        s.graphics[s.graphicsIndex] = value;
        return;
      case 0x3b4:
      case 0x3d4:
        s.crtcIndex = value & 0x3f;
        return;
      case 0x3b5:
      case 0x3d5:
        return this.writeCrtc(value);
      case 0x3ba:
      case 0x3da:
        s.feature = value;
    }
  }

  /** Bit 3 vertical retrace, bit 0 no picture; reading makes 3C0h take an index next. */
  readStatus(): number {
    this.state.attributeData = false;
    const time = this.context.now() % (lineTime * totalLines);
    const line = Math.floor(time / lineTime);
    const hidden = line >= visibleLines || time % lineTime > lineTime * 0.8;
    const retrace = line >= visibleLines + 12 && line < visibleLines + 14;
    return (hidden ? 1 : 0) | (retrace ? 8 : 0);
  }

  writeAttribute(value: number): void {
    const s = this.state;
    if (!s.attributeData) s.attributeIndex = value & 0x3f;
    // Bit 5 set: the palette belongs to the picture and cannot be written.
    else if ((s.attributeIndex & 0x1f) >= 16 || !(s.attributeIndex & 0x20)) {
      const index = s.attributeIndex & 0x1f;
      if (index < attributeRegisters) s.attribute[index] = value;
    }
    s.attributeData = !s.attributeData;
  }

  /** Bit 7 of register 11h protects registers 0 to 7, but for bit 4 of register 7. */
  writeCrtc(value: number): void {
    const { crtc, crtcIndex } = this.state;
    if (crtcIndex < 8 && crtc[0x11] & 0x80) {
      if (crtcIndex === 7) crtc[7] = crtc[7] & ~0x10 | value & 0x10;
    } else if (crtcIndex < crtcRegisters) {
      crtc[crtcIndex] = value;
    }
  }

  readPalette(): number {
    const s = this.state;
    const value = s.palette[s.dacRead * 3 + s.dacColour];
    s.dacColour = (s.dacColour + 1) % 3;
    if (s.dacColour === 0) s.dacRead = s.dacRead + 1 & 0xff;
    return value;
  }

  writePalette(value: number): void {
    const s = this.state;
    s.palette[s.dacWrite * 3 + s.dacColour] = value & 0x3f;
    s.dacColour = (s.dacColour + 1) % 3;
    if (s.dacColour === 0) s.dacWrite = s.dacWrite + 1 & 0xff;
  }

  mmioRead(address: number, _size: Size): number {
    return this.state.memory[address - 0xa0000];
  }

  mmioWrite(address: number, _size: Size, value: number): void {
    this.state.memory[address - 0xa0000] = value;
  }

  /** Columns and rows of the picture as the CRTC has them, 80 x 25 at first. */
  get size(): { columns: number; rows: number } {
    const { crtc } = this.state;
    const lines = (crtc[0x12] | (crtc[7] & 2) << 7 | (crtc[7] & 0x40) << 3) + 1;
    const rows = Math.max(1, Math.floor(lines / ((crtc[9] & 0x1f) + 1)));
    return { columns: crtc[1] + 1, rows: Math.min(rows, 100) };
  }

  /** The cursor's place, or undefined when it is off or outside the picture. */
  get cursor(): { column: number; row: number } | undefined {
    const { crtc } = this.state;
    const { columns, rows } = this.size;
    const at = (crtc[14] << 8 | crtc[15]) - (crtc[12] << 8 | crtc[13]);
    if (crtc[10] & 0x20 || at < 0 || at >= columns * rows) return undefined;
    return { column: at % columns, row: Math.floor(at / columns) };
  }

  /** Offset in `memory` of a cell's character; its attribute follows. */
  cell(column: number, row: number): number {
    const { crtc, memory, misc } = this.state;
    const pitch = crtc[0x13] * 2 || this.size.columns;
    const base = misc & 1 ? 0x18000 : 0x10000;
    const at = (crtc[12] << 8 | crtc[13]) + row * pitch + column;
    return (base + at * 2 % 0x8000) % memory.length;
  }

  /** The picture as text: one line per row, blanks at the ends removed. */
  text(): string {
    const { columns, rows } = this.size;
    const lines: string[] = [];
    for (let row = 0; row < rows; row++) {
      let line = "";
      for (let column = 0; column < columns; column++) {
        const code = this.state.memory[this.cell(column, row)];
        line += code === 0 ? " " : glyphs[code];
      }
      lines.push(line.replace(/[ \u00a0]+$/, ""));
    }
    return lines.join("\n").replace(/\n+$/, "");
  }

  /** The whole picture with ANSI colours and the cursor in reverse, one line per row. */
  get picture(): string {
    const { columns, rows } = this.size;
    const cursor = this.cursor;
    const lines: string[] = [];
    for (let row = 0; row < rows; row++) {
      let line = "";
      let colour = -1;
      for (let column = 0; column < columns; column++) {
        const at = this.cell(column, row);
        const code = this.state.memory[at];
        const here = cursor?.row === row && cursor.column === column;
        const attribute = this.state.memory[at + 1] | (here ? 0x100 : 0);
        if (attribute !== colour) line += escape(colour = attribute);
        line += code === 0 || code === 255 ? " " : glyphs[code];
      }
      lines.push(line + "\x1b[0m");
    }
    return lines.join("\n");
  }

  reset(): void {
    this.state = stateAfterReset();
  }

  show(): string {
    const { columns, rows } = this.size;
    const { cursor } = this;
    const place = cursor ? `column ${cursor.column}, row ${cursor.row}` : "off";
    return `vga: text ${columns} x ${rows}, start 0x${hex(this.cell(0, 0) + 0xa0000)}, ` +
      `cursor ${place}\n${this.text()}`;
  }
}

function escape(attribute: number): string {
  const foreground = (attribute & 8 ? 90 : 30) + ansi[attribute & 7];
  const background = 40 + ansi[attribute >> 4 & 7];
  return `\x1b[0;${attribute & 0x100 ? "7;" : ""}${foreground};${background}m`;
}
