/**
 * The ports and memory ranges of one guest: which device answers, and how wide accesses split.
 *
 * @module
 */
import { type Device, hex, type Size, table } from "./device.ts";

/**
 * The devices of one guest.
 *
 * An access goes whole to a device that owns all of its ports (or addresses) and takes its width, and
 * otherwise byte by byte, lowest first, each to the device that owns it. Where nobody answers, reads
 * give all ones and writes vanish, as on a real PC's bus.
 */
export class Bus {
  /** All of them, in the order they were attached. */
  readonly devices: Device[] = [];
  /** Owner of each port; filled by `attach`, wiring and not state. */
  readonly owners: (Device | undefined)[] = new Array(0x10000);

  /**
   * Adds a device.
   * @throws {RangeError} when its name, a port or an address is already taken.
   */
  attach<D extends Device>(device: D): D {
    if (this.devices.some((other) => other.name === device.name)) {
      throw new RangeError(`a device named ${device.name} is already attached`);
    }
    for (const [first, last] of device.ports) {
      for (let port = first; port <= last; port++) {
        const owner = this.owners[port];
        if (owner) {
          throw new RangeError(
            `port 0x${hex(port)} of ${device.name} is already taken by ${owner.name}`,
          );
        }
      }
    }
    for (const { base, size } of device.mmio) {
      const { processor } = device;
      const other = this.owner(base, processor) ?? this.owner(base + size - 1, processor);
      if (other) {
        throw new RangeError(
          `address 0x${hex(base)} of ${device.name} is already taken by ${other.name}`,
        );
      }
    }
    for (const [first, last] of device.ports) {
      for (let port = first; port <= last; port++) this.owners[port] = device;
    }
    this.devices.push(device);
    return device;
  }

  /** The device of that name. @throws {RangeError} naming those there are. */
  get(name: string): Device {
    const found = this.devices.find((device) => device.name === name);
    if (found) return found;
    const names = this.devices.map((device) => device.name).join(", ");
    throw new RangeError(`no device is named ${name}; there are ${names}`);
  }

  /** The device whose memory range holds `address`, if any: for one processor, or for any. */
  owner(address: number, processor?: number): Device | undefined {
    return this.devices.find((device) =>
      sees(device, processor) &&
      device.mmio.some(({ base, size }) => address >= base && address < base + size)
    );
  }

  /** The device that takes an access at a port whole: its register there, or all of the ports. */
  #whole(port: number, size: Size): Device | undefined {
    const device = this.owners[port];
    if (!device || device.registers?.[port]?.includes(size)) return device;
    if (size > device.width) return undefined;
    for (let i = 1; i < size; i++) if (this.owners[port + i] !== device) return undefined;
    return device;
  }

  /** The device at byte `i` of an access that is split. */
  #partly(port: number, i: number): Device | undefined {
    const device = this.owners[port + i];
    return i > 0 && device?.registers?.[port + i] ? undefined : device;
  }

  /** A read of `size` bytes at a port, as the guest makes it; unsigned. */
  read(port: number, size: Size): number {
    const device = this.#whole(port, size);
    if (device?.read) return device.read(port, size);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      value = value * 256 + (this.#partly(port, i)?.read?.(port + i, 1) ?? 0xff);
    }
    return value;
  }

  /** A write of the low `size` bytes of `value` at a port. */
  write(port: number, size: Size, value: number): void {
    const device = this.#whole(port, size);
    if (device?.write) return device.write(port, size, value >>> 0);
    for (let i = 0; i < size; i++) {
      this.#partly(port, i)?.write?.(port + i, 1, value >>> (8 * i) & 0xff);
    }
  }

  /** The device that takes an access to memory whole. */
  #wholeMemory(address: number, size: Size, processor?: number): Device | undefined {
    const device = this.owner(address, processor);
    if (!device || size > device.width) return undefined;
    return size === 1 || this.owner(address + size - 1, processor) === device ? device : undefined;
  }

  /** A processor's read of `size` bytes at a guest-physical address that is no memory; unsigned. */
  mmioRead(address: number, size: Size, processor?: number): number {
    const device = this.#wholeMemory(address, size, processor);
    if (device?.mmioRead) return device.mmioRead(address, size);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      const owner = this.owner(address + i, processor);
      value = value * 256 + (owner?.mmioRead?.(address + i, 1) ?? 0xff);
    }
    return value;
  }

  /** A write of the low `size` bytes of `value` at such an address. */
  mmioWrite(address: number, size: Size, value: number, processor?: number): void {
    const device = this.#wholeMemory(address, size, processor);
    if (device?.mmioWrite) return device.mmioWrite(address, size, value >>> 0);
    for (let i = 0; i < size; i++) {
      const owner = this.owner(address + i, processor);
      owner?.mmioWrite?.(address + i, 1, value >>> (8 * i) & 0xff);
    }
  }

  /** Guest ns of the earliest deadline; Infinity if no device waits for anything. */
  deadline(): number {
    let earliest = Infinity;
    for (const device of this.devices) earliest = Math.min(earliest, device.deadline());
    return earliest;
  }

  /** Brings every device up to `now` (guest ns), the one with the earliest deadline first. */
  run(now: number): void {
    const due = this.devices.filter((device) => device.deadline() <= now);
    due.sort((a, b) => a.deadline() - b.deadline());
    for (const device of due) device.run(now);
  }

  /** All devices to their state after power-on. */
  reset(): void {
    for (const device of this.devices) device.reset();
  }

  /** Devices with their ports and addresses. */
  show(): string {
    const rows: (string | number)[][] = [["device", "version", "ports", "memory"]];
    for (const device of this.devices) {
      const ports = device.ports.map(([first, last]) =>
        first === last ? hex(first) : `${hex(first)}-${hex(last)}`
      );
      const memory = device.mmio.map(({ base, size }) => `${hex(base)}-${hex(base + size - 1)}`);
      rows.push([device.name, device.version, ports.join(" "), memory.join(" ")]);
    }
    return table(rows);
  }

  /** @ignore */
  [Symbol.for("Deno.customInspect")](): string {
    return this.show();
  }
}

const sees = (device: Device, processor: number | undefined): boolean =>
  device.processor === undefined || processor === undefined || device.processor === processor;
