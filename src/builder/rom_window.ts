/**
 * The place of a ROM below 4 GB, where a processor begins after reset.
 *
 * @module
 */
import { DeviceModel, hex, type MmioRange, type Size } from "../devices/device.ts";
import type { Alias } from "./load.ts";

/** What of a domain's memory a window needs. */
interface Readable {
  read(gpa: number, length: number): Uint8Array;
}

/**
 * A range of the bus that reads as another range of memory: the ROM's copy below 4 GB, where the
 * processor begins after reset. Writes vanish.
 */
export class RomWindow extends DeviceModel<Record<string, never>> {
  readonly name: string;
  readonly version = 1;
  override readonly width: Size = 4;
  override readonly mmio: readonly MmioRange[];

  constructor(readonly memory: Readable, readonly alias: Alias) {
    super({});
    this.name = `rom-${hex(alias.start)}`;
    this.mmio = [{ base: alias.start, size: alias.end - alias.start }];
  }

  mmioRead(address: number, size: Size): number {
    const { start, end, target } = this.alias;
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      const byte = address + i < end ? this.memory.read(target + address + i - start, 1)[0] : 0xff;
      value = value * 256 + byte;
    }
    return value;
  }

  // No ports.
  read(_port: number, size: Size): number {
    return 256 ** size - 1;
  }
  write(): void {}
  reset(): void {}

  show(): string {
    const { start, end, target } = this.alias;
    return `${this.name}: ${hex(start)}-${hex(end - 1)} reads as ${hex(target)}`;
  }
}
