/** What a processor is connected to: ports and addresses that are no memory, interrupts, deadlines. */

/** What answers on the buses of a processor. All numbers are unsigned. */
export interface MachineBus {
  /** Reads `bytes` (1, 2 or 4) from an I/O port; no device: all ones. */
  ioRead(port: number, bytes: number): number;
  ioWrite(port: number, bytes: number, value: number): void;
  /** Reads `bytes` (1, 2 or 4) at a physical address that is not memory. */
  mmioRead(address: number, bytes: number): number;
  mmioWrite(address: number, bytes: number, value: number): void;
  /** An interrupt controller asks for service. */
  interruptPending(): boolean;
  /** The vector of that interrupt, acknowledged; -1 if it went away. */
  acknowledge(): number;
  /** Machine time (ns) at which `run` has something to do; Infinity: never. */
  deadline(): number;
  run(now: number): void;
}

export const NO_DEVICES: MachineBus = {
  ioRead: (_, bytes) => 2 ** (8 * bytes) - 1,
  ioWrite: () => {},
  mmioRead: (_, bytes) => 2 ** (8 * bytes) - 1,
  mmioWrite: () => {},
  interruptPending: () => false,
  acknowledge: () => -1,
  deadline: () => Infinity,
  run: () => {},
};
