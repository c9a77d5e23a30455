/**
 * Devices in scripts: what answers a guest's ports, or memory addresses without memory.
 *
 * @module
 */
import { isPromise } from "../xen/ioreq.ts";
import { callable, options as optionsOf, pairOf, u16, whole, wrongType } from "./check.ts";
import type { GuestDomain } from "./domain.ts";
import { HvmEngine } from "../xen/hvm.ts";
import type { Subject } from "./subject.ts";
import { hex, INSPECT, tableText } from "./values.ts";
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

/** An access of the guest that a device is still to answer. */
export interface PendingRequest {
  /** The vCPU that waits for it. */
  readonly vcpu: number;
  /** Whether it is of an I/O port, or of a guest-physical address. */
  readonly type: "port" | "mmio";
  /** What the guest does. */
  readonly dir: "read" | "write";
  /** The port, or the address. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
  /** What is written; undefined of a read. */
  readonly value: number | undefined;
  /** In the words of Xen's hvm/ioreq.h: "inprocess" while the device is at it. */
  readonly state: string;
}
function requestsOf({ inner: { vcpus } }: Subject): readonly PendingRequest[] {
  return vcpus.flatMap(({ id, engine }) => {
    const request = engine instanceof HvmEngine ? engine.ioreq.request : undefined;
    if (!request) return [];
    const { type, dir, addr, size, data, state } = request;
    const value = dir === "write" ? data : undefined;
    return [{
      vcpu: id,
      type: type === "pio" ? "port" as const : "mmio" as const,
      dir,
      address: addr,
      size,
      value,
      state,
    }];
  });
}

const rangeText = ([first, last]: readonly [number, number]) => `${hex(first)} to ${hex(last)}`;
function devicesText(
  servers: readonly DeviceRange[],
  requests: readonly PendingRequest[],
): string {
  const ranges = servers.map(({ port, mmio }) =>
    [port && `ports ${rangeText(port)}`, mmio && `addresses ${rangeText(mmio)}`]
      .filter((text) => text).join(", ")
  );
  const waiting = requests.map(({ vcpu, type, dir, address, size, value, state }) => [
    vcpu,
    `${dir} ${type} ${hex(address)}`,
    size,
    value === undefined ? "" : hex(value),
    state,
  ]);
  return [
    ranges.length ? "devices in scripts, as they are asked:" : "no devices in scripts",
    ...ranges.map((text) => `  ${text}`),
    ...waiting.length ? [tableText(["vcpu", "request", "bytes", "value", "state"], waiting)] : [],
    "  serve(range, { read, write }) servers requests dropped onDropped(listener)",
  ].join("\n");
}

/** Most texts that are kept of answers that came too late. */
const MAX_DROPPED = 100;

/** The devices in scripts that a domain has. */
export function scriptDevices(subject: Subject): GuestDomain["ioreq"] {
  const { onNote } = subject.inner, dropped: string[] = [];
  const servers = () => subject.inner.servers.all.map(({ port, mmio }) => ({ port, mmio }));
  const requests = () => requestsOf(subject);
  onNote.add((text) => {
    if (dropped.push(text) > MAX_DROPPED) dropped.shift();
  });
  const ioreq: GuestDomain["ioreq"] = {
    dropped,
    get servers() {
      return servers();
    },
    get requests() {
      return requests();
    },
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
  return Object.defineProperty(ioreq, INSPECT, { value: () => devicesText(servers(), requests()) });
}
