/**
 * PCI configuration mechanism 1: the address port CF8h and the data window CFCh.
 * Source: PCI Local Bus Specification 3.0, 3.2.2.3.2.
 *
 * @module
 */
import { DeviceModel, DWORD, hex, type PortRange, type Ranges, type Size } from "./device.ts";

/** A bus that answers configuration accesses; `register` is the byte offset, 0 to 255. */
export interface PciBus {
  read(bus: number, device: number, fn: number, register: number, size: Size): number;
  write(bus: number, device: number, fn: number, register: number, size: Size, value: number): void;
}

/** State of {@linkcode PciConfig}. */
export interface PciState {
  address: number;
}

/**
 * The configuration ports. Without a bus every function reads as all ones: no device.
 *
 * Only a 32-bit access at CF8h reaches the address register. CF9h belongs to the reset control
 * register of `Acpi`.
 */
export class PciConfig extends DeviceModel<PciState> {
  readonly name = "pci";
  readonly version = 1;
  override readonly ranges: Ranges = { address: DWORD };
  override readonly width: Size = 4;
  override readonly registers = { 0xcf8: [4] } as const;
  override readonly ports: readonly PortRange[] = [[0xcf8, 0xcf8], [0xcfc, 0xcff]];

  constructor(readonly bus?: PciBus) {
    super({ address: 0 });
  }

  read(port: number, size: Size): number {
    if (port === 0xcf8) return size === 4 ? this.state.address : 256 ** size - 1;
    const { address } = this.state;
    if (!this.bus || address < 0x80000000) return 256 ** size - 1;
    return this.bus.read(...place(address), address & 0xfc | port & 3, size);
  }

  write(port: number, size: Size, value: number): void {
    if (port === 0xcf8) {
      if (size === 4) this.state.address = (value & 0x80fffffc) >>> 0;
      return;
    }
    const { address } = this.state;
    if (!this.bus || address < 0x80000000) return;
    this.bus.write(...place(address), address & 0xfc | port & 3, size, value);
  }

  reset(): void {
    this.state.address = 0;
  }

  show(): string {
    const [bus, device, fn] = place(this.state.address);
    return `pci: ${this.bus ? "a bus" : "no bus"}; address ${hex(this.state.address, 8)} ` +
      `(${hex(bus)}:${hex(device)}.${fn} register ${hex(this.state.address & 0xfc)})`;
  }
}

function place(address: number): [bus: number, device: number, fn: number] {
  return [address >>> 16 & 0xff, address >>> 11 & 31, address >>> 8 & 7];
}
