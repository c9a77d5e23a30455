// QEMU's firmware configuration device: numbered items, read byte by byte.
// Source: QEMU, docs/specs/fw_cfg.rst. kvm-unit-tests and SeaBIOS read it.

import { DeviceModel, hex, type PortRange, type Size, table } from "./device.ts";

/** State of {@linkcode FwCfg}. */
export interface FwCfgState {
  selector: number;
  offset: number;
  /** Contents by selector, decimal. */
  items: Record<string, Uint8Array>;
}

/** Selectors of the items that are always there (16 bits). */
export const fwCfgItem = {
  signature: 0x00,
  id: 0x01,
  ramSize: 0x03,
  cpus: 0x05,
  maxCpus: 0x0f,
  directory: 0x19,
} as const;

/** What the standard items say. */
export interface FwCfgOptions {
  /** Bytes of memory. */
  readonly memory: number;
  readonly cpus?: number;
}

/** The device at ports 510h (selector, 16 bits) and 511h (data, 8 bits). */
export class FwCfg extends DeviceModel<FwCfgState> {
  readonly name = "fw_cfg";
  readonly version = 1;
  override readonly width: Size = 2;
  override readonly ports: readonly PortRange[] = [[0x510, 0x511]];

  constructor(options: FwCfgOptions) {
    super({ selector: 0, offset: 0, items: {} });
    const cpus = options.cpus ?? 1;
    this.set(fwCfgItem.signature, new TextEncoder().encode("QEMU"));
    this.set(fwCfgItem.id, littleEndian(1, 4)); // the port interface, no DMA
    this.set(fwCfgItem.ramSize, littleEndian(options.memory, 8));
    this.set(fwCfgItem.cpus, littleEndian(cpus, 2));
    this.set(fwCfgItem.maxCpus, littleEndian(cpus, 2));
    this.set(fwCfgItem.directory, littleEndian(0, 4));
  }

  /** Adds or replaces an item. */
  set(selector: number, content: Uint8Array): void {
    this.state.items[selector] = content;
  }

  read(port: number, size: Size): number {
    // The selector cannot be read; data comes a byte per access.
    if (port === 0x510) return 256 ** size - 1;
    const byte = this.state.items[this.state.selector]?.[this.state.offset++] ?? 0;
    return size === 1 ? byte : byte | 0xff00;
  }

  write(port: number, size: Size, value: number): void {
    if (port !== 0x510) return;
    this.state.selector = size === 1 ? this.state.selector & 0xff00 | value : value;
    this.state.offset = 0;
  }

  reset(): void {
    this.state.selector = this.state.offset = 0;
  }

  show(): string {
    const rows: (string | number)[][] = [["item", "bytes"]];
    for (const [selector, content] of Object.entries(this.state.items)) {
      rows.push(["0x" + hex(Number(selector)), content.length]);
    }
    return `fw_cfg: item 0x${hex(this.state.selector)} at ${this.state.offset}\n${table(rows)}`;
  }
}

function littleEndian(value: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++, value = Math.floor(value / 256)) bytes[i] = value % 256;
  return bytes;
}
