/**
 * QEMU's firmware configuration device: numbered items, read byte by byte.
 * Source: QEMU, docs/specs/fw_cfg.rst. kvm-unit-tests and SeaBIOS read it.
 *
 * @module
 */
import {
  DeviceModel,
  DWORD,
  hex,
  type PortRange,
  type Ranges,
  type Size,
  table,
  WORD,
} from "./device.ts";

/** State of {@linkcode FwCfg}. */
export interface FwCfgState {
  selector: number;
  offset: number;
  /** Contents by selector, decimal. */
  items: Record<string, Uint8Array>;
}

/** Selectors of the items that are always there (16 bits). */
const fwCfgItem = {
  signature: 0x00,
  id: 0x01,
  ramSize: 0x03,
  cpus: 0x05,
  maxCpus: 0x0f,
  directory: 0x19,
  /** Of the first file that the directory lists. */
  files: 0x20,
} as const;

/** Bytes of an entry of the directory, and of the name in it with its NUL. */
const ENTRY = 64, NAME = 56;

/** What the standard items say. */
export interface FwCfgOptions {
  /** Bytes of memory. */
  readonly memory: number;
  readonly cpus?: number;
  /** Files by their names: `etc/e820` is the memory map, 20 bytes an entry. */
  readonly files?: Readonly<Record<string, Uint8Array>>;
}

/** The device at ports 510h (selector, 16 bits) and 511h (data, 8 bits). */
export class FwCfg extends DeviceModel<FwCfgState> {
  readonly name = "fw_cfg";
  readonly version = 1;
  override readonly ranges: Ranges = { selector: WORD, offset: DWORD };
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
    const files = Object.entries(options.files ?? {});
    this.set(fwCfgItem.directory, directoryOf(files));
    files.forEach(([, content], i) => this.set(fwCfgItem.files + i, content));
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

/** How many files, and of each its size, its selector and its name; numbers are big-endian. */
function directoryOf(files: readonly (readonly [name: string, content: Uint8Array])[]): Uint8Array {
  const bytes = new Uint8Array(4 + files.length * ENTRY);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, files.length);
  files.forEach(([name, content], i) => {
    const at = 4 + i * ENTRY, text = new TextEncoder().encode(name);
    if (text.length >= NAME) {
      throw new RangeError(`a file's name is ${text.length} bytes, expected less than ${NAME}`);
    }
    view.setUint32(at, content.length);
    view.setUint16(at + 4, fwCfgItem.files + i);
    bytes.set(text, at + ENTRY - NAME);
  });
  return bytes;
}

function littleEndian(value: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++, value = Math.floor(value / 256)) bytes[i] = value % 256;
  return bytes;
}
