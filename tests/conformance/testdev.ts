/** What kvm-unit-tests expect around them beside a PC: QEMU's pc-testdev, and a BIOS's settings. */
import type { BuiltDomain } from "../../src/builder/domain.ts";
import type { Board } from "../../src/builder/board.ts";
import {
  DeviceModel,
  hex,
  type MmioRange,
  type PortRange,
  type Size,
} from "../../src/devices/device.ts";

interface TestDevState {
  /** What was last written to the scratch port. */
  scratch: number;
  /** Bytes behind the memory window. */
  memory: Uint8Array;
}

const WINDOW = { base: 0xff000000, size: 0x10000 } as const;

/** IRQ lines 0 to 23 by ports 2000h + line, a scratch register at E0h, 64 KB of slow memory. */
export class TestDev extends DeviceModel<TestDevState> {
  readonly name = "testdev";
  readonly version = 1;
  override readonly width: Size = 4;
  override readonly ports: readonly PortRange[] = [[0xe0, 0xe7], [0x2000, 0x2017]];
  override readonly mmio: readonly MmioRange[] = [WINDOW];

  constructor(readonly board: Board) {
    super({ scratch: 0, memory: new Uint8Array(WINDOW.size) });
  }

  mmioRead(address: number, size: Size): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      value = value * 256 + (this.state.memory[address - WINDOW.base + i] ?? 0xff);
    }
    return value;
  }
  mmioWrite(address: number, size: Size, value: number): void {
    for (let i = 0; i < size; i++) {
      this.state.memory[address - WINDOW.base + i] = value >>> (8 * i);
    }
  }

  read(port: number, size: Size): number {
    return port < 0x2000 ? this.state.scratch % 256 ** size : 256 ** size - 1;
  }

  write(port: number, _size: Size, value: number): void {
    if (port < 0x2000) {
      this.state.scratch = value;
      return;
    }
    const { board } = this;
    const line = port - 0x2000;
    if (line < 16) board.pic.setLine(line, value !== 0);
    board.ioApic.setIrq(line, value !== 0);
    board.events.changed();
  }

  reset(): void {
    this.state = { scratch: 0, memory: new Uint8Array(WINDOW.size) };
  }
  show(): string {
    return `testdev: scratch ${hex(this.state.scratch)}`;
  }
}

/** PUSH AX; MOV AL,20h; OUT 20h,AL; POP AX; IRET: a BIOS's timer handler at its least. */
const TIMER_HANDLER = [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf];
const HANDLER_AT = 0xff000;

/**
 * The timer as a BIOS leaves it: 18.2 Hz on IRQ 0, vector 8, everything else masked. realmode waits
 * with HLT for whatever interrupt comes.
 */
export function biosTimer({ board, domain }: BuiltDomain): void {
  domain.memory.write(HANDLER_AT, Uint8Array.from(TIMER_HANDLER));
  domain.memory.write(8 * 4, Uint8Array.of(0, 0, HANDLER_AT >> 4 & 0xff, HANDLER_AT >> 12));
  const out = (port: number, ...bytes: number[]) => {
    for (const byte of bytes) board.ioWrite(port, 1, byte);
  };
  const initialize = (port: number, vector: number, wiring: number, mask: number) => {
    out(port, 0x11);
    out(port + 1, vector, wiring, 1, mask);
  };
  initialize(0x20, 0x08, 4, 0xfa);
  initialize(0xa0, 0x70, 2, 0xff);
  out(0x43, 0x36);
  out(0x40, 0, 0);
}
