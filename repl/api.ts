/**
 * Where the shell meets mod.ts: the few calls that start a host and make a domain.
 *
 * @module
 */
import type { GuestType } from "../src/abi/boot/images.ts";
import type { DomainView, HypervisorView } from "./context.ts";

/** A domain as `xvm boot` needs it. */
export interface BootDomain extends DomainView {
  destroy(): void;
  /** Resolves when the guest powered off, crashed or was destroyed; `ok` for a power-off. */
  ended: Promise<{ reason: string; detail: string; ok: boolean }>;
  /** Its `shows` resolves when the text contains `wanted`, and rejects when the domain ends first. */
  console: DomainView["console"] & { shows(wanted: string): Promise<void> };
  /** The text screen. */
  screen: { text(): string };
  /** Instructions retired, and exits by kind. */
  statistics(): {
    instructions: number | bigint;
    exits: Record<string, number>;
    /** What shadow paging has done, where there is any. */
    shadow?: object;
  };
}

/** What a domain is made from. */
export interface DomainOptions {
  name: string;
  type: GuestType;
  paging: "hap" | "shadow";
  kernel: string;
  ramdisk?: string;
  modules?: readonly { file: string; cmdline?: string }[];
  cmdline?: string;
  memory: number;
  shadowMemory?: number;
  vcpus: number;
  symbols?: string;
  cpuid?: string;
}

/** A host as `xvm boot` needs it. */
export interface BootHost extends HypervisorView {
  createDomain(options: DomainOptions): Promise<BootDomain>;
  /** Of all state, in hexadecimal. */
  stateHash(): string;
  close(): Promise<void>;
}

/** Everything that mod.ts exports, by name. */
export async function publicApi(): Promise<Record<string, unknown>> {
  return { ...await import("xvm") };
}

/** Starts a host. */
export async function openHost(
  options: { cpu: "intel" | "amd"; memory: number; seed?: number; cpus?: number },
): Promise<BootHost> {
  const { Hypervisor } = await publicApi() as {
    Hypervisor: { start(options: object): Promise<BootHost> };
  };
  return await Hypervisor.start(options);
}

/** A host with the built-in demo guest on it, paused at its first instruction. */
export async function openDemo(): Promise<BootHost> {
  const { Hypervisor } = await publicApi() as {
    Hypervisor: { demo(options: { seed: number }): Promise<BootHost> };
  };
  return await Hypervisor.demo({ seed: 1 });
}
