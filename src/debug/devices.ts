/**
 * Devices in scripts: what answers a guest's ports, or memory addresses without memory.
 *
 * @module
 */
import { isPromise } from "../xen/ioreq.ts";
import { callable, options as optionsOf, pairOf, u16, whole, wrongType } from "./check.ts";
import type { GuestDomain } from "./domain.ts";
import type { Subject } from "./subject.ts";
import { held } from "./waits.ts";

/** A device in a script: what its ports, or memory addresses, answer. */
export interface DeviceHandlers {
  /** Gives what a read of `size` bytes at an address gets; a promise lets the guest wait. */
  read?(address: number, size: number): number | undefined | Promise<number | undefined>;
  /** Takes what is written, `size` bytes; if it returns a promise the guest waits. */
  write?(address: number, value: number, size: number): unknown;
}

/** Where a device in a script answers: first and last port, or guest-physical address. */
export interface DeviceRange {
  /** I/O ports, both included. */
  readonly port?: readonly [first: number, last: number];
  /** Guest-physical addresses, both included. */
  readonly mmio?: readonly [first: number, last: number];
}

/** @see DeviceRange */
const DEVICE_RANGE = optionsOf({
  port: pairOf(u16),
  mmio: pairOf(whole(0, Number.MAX_SAFE_INTEGER)),
});
/** A device's functions; it may be an object of a class. */
function handlersOf(device: DeviceHandlers): DeviceHandlers {
  if (typeof device !== "object" || device === null) {
    throw wrongType("ioreq.serve", "{ read(address, size), write(address, value, size) }", device);
  }
  const { read, write } = device;
  if (!read && !write) throw new TypeError("ioreq.serve: a device has read, write, or both");
  if (read) callable(read, "ioreq.serve read");
  if (write) callable(write, "ioreq.serve write");
  return { read: read?.bind(device), write: write?.bind(device) };
}

/** A device whose calls the domain stands still for. */
function heldBy(subject: Subject, { read, write }: DeviceHandlers): DeviceHandlers {
  // What has a `then` of its own begins here, too.
  const begun = (answer: unknown) => isPromise(answer) ? Promise.resolve(answer) : answer;
  const call = <T>(fn: () => T) =>
    held(subject, "its device's answer", () => begun(fn()) as T, (answer) => answer);
  return {
    ...(read && { read: (address, size) => call(() => read(address, size)) }),
    ...(write && { write: (address, value, size) => call(() => write(address, value, size)) }),
  };
}

/** Most texts that are kept of answers that came too late. */
const MAX_DROPPED = 100;

/** The devices in scripts that a domain has. */
export function scriptDevices(subject: Subject): GuestDomain["ioreq"] {
  const { onNote } = subject.inner, dropped: string[] = [];
  onNote.add((text) => {
    if (dropped.push(text) > MAX_DROPPED) dropped.shift();
  });
  return {
    dropped,
    serve(range, handlers) {
      const { engine, inner: { servers }, name } = subject;
      subject.mustLive("ioreq.serve");
      if (!engine) {
        throw new Error(
          `domain ${name} runs on the bare processor: its accesses leave no I/O requests; a ` +
            `domain of type "hvm" has them`,
        );
      }
      // While the answer is awaited time stands still for the guest.
      return servers.serve({
        ...DEVICE_RANGE(range, "ioreq.serve"),
        ...heldBy(subject, handlersOf(handlers)),
      });
    },
    onDropped(listener) {
      subject.mustLive("ioreq.onDropped");
      callable(listener, "ioreq.onDropped");
      onNote.add(listener);
      return () => void onNote.delete(listener);
    },
  };
}
