/**
 * What Xen's interface costs: events to and fro between two domains that wait for each other, or spin, and
 * grant copies; each a second of CPU time.
 */
import { GNTCOPY, GNTTABOP } from "../../src/abi/xen/grant_table.ts";
import { EVTCHNOP } from "../../src/abi/xen/event_channel.ts";
import { HYPERCALLS } from "../../src/abi/xen/hypercalls.ts";
import { SCHEDOP } from "../../src/abi/xen/sched.ts";
import { DOMID } from "../../src/abi/xen/xen.ts";
import { View } from "../../src/abi/layout.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";
import type { Domain } from "../../src/xen/domain.ts";
import type { Host } from "../../src/xen/host.ts";
import { image, rate, running } from "./exits.ts";

/** Guest-physical places: arguments, an array of copies, where shared_info is shown, a page. */
const AT = {
  port: 0x20_0000,
  poll: 0x20_0010,
  copies: 0x20_1000,
  shared: 0x30_0000,
  page: 0x40_0000,
};
/** evtchn_pending and evtchn_mask of a 32-bit guest. */
const PENDING = AT.shared + 0x800, MASK = 0x880;
/** Copies of one call. */
const COPIES = 128;

const instruction = (cpu: CpuModel) => cpu === "intel" ? "vmcall" : "vmmcall";
const call = (cpu: CpuModel, number: number, ...args: (number | string)[]) =>
  [
    `mov eax, ${number}`,
    ...args.map((arg, n) => `mov ${["ebx", "ecx", "edx"][n]}, ${arg}`),
    instruction(cpu),
  ].join("\n");

/** Waits for an event on the port, by a hypercall or in a loop; and takes it. */
function wait(cpu: CpuModel, spins: boolean, label: string): string {
  const poll = call(cpu, HYPERCALLS.sched_op.number, SCHEDOP.poll.number, AT.poll);
  const take = `mov edx, [${AT.port}]\nlock btr [${PENDING}], edx\njnc ${label}`;
  return `${label}:\n${spins ? "pause" : poll}\n${take}`;
}
const send = (cpu: CpuModel) =>
  call(cpu, HYPERCALLS.event_channel_op.number, EVTCHNOP.send.number, AT.port);

function words(domain: Domain, at: number, ...values: number[]): void {
  domain.memory.write(at, new Uint8Array(Uint32Array.from(values).buffer));
}

/** Two domains joined by a channel, whose ports are masked: nothing but a wait sees events. */
function join(host: Host): void {
  const [one, two] = host.domains;
  const offered = one.xen!.channels.allocUnbound(two.id);
  const bound = two.xen!.channels.bindInterdomain(one.id, offered);
  for (const [domain, port] of [[one, offered], [two, bound]] as const) {
    const { xen } = domain;
    xen!.physmap.add(BigInt(AT.shared / 4096), xen!.sharedInfo / 4096);
    xen!.memory.setBit(xen!.sharedInfo + MASK, port, true);
    xen!.channels.abi.clear(port);
    words(domain, AT.port, port);
    // sched_poll: ports, how many, no timeout.
    words(domain, AT.poll, AT.port, 1, 0, 0);
  }
}

/** Round trips a second between two domains on one processor, as the median of `runs`. */
export async function roundTripRate(runs: number, cpu: CpuModel, spins: boolean): Promise<number> {
  const first = image(`${send(cpu)}\n${wait(cpu, spins, "again")}\njmp entry`);
  const second = image(`${wait(cpu, spins, "again")}\n${send(cpu)}\njmp entry`);
  const host = await running(cpu, [first, second], { xen: true });
  join(host);
  const [{ xen }] = host.domains, trips = spins ? 40 : 50_000;
  const done = () => xen!.channels.all.find(({ state }) => state === "interdomain")!.sent;
  return rate(runs, () => {
    const before = done();
    while (done() - before < trips) host.runOnce(1_000_000);
    return done() - before;
  });
}

/** Copies of 4 KiB a second out of another domain's page, as the median of `runs`. */
export async function copyRate(runs: number, cpu: CpuModel): Promise<number> {
  const { number } = HYPERCALLS.grant_table_op;
  const copies = `${call(cpu, number, GNTTABOP.copy.number, AT.copies, COPIES)}\njmp entry`;
  const host = await running(cpu, [image("jmp entry"), image(copies)], { xen: true });
  const [one, two] = host.domains;
  one.setState({ kind: "paused" });
  one.xen!.grants.seed(8, two.id, AT.page / 4096);
  for (let n = 0; n < COPIES; n++) {
    const view = new View(GNTTABOP.copy.arg, 32).setAll({
      "source.u.ref": 8,
      "source.domid": one.id,
      "dest.u.gmfn": AT.page / 4096 + n,
      "dest.domid": DOMID.SELF,
      len: 4096,
      flags: GNTCOPY.source_gref,
    });
    two.memory.write(AT.copies + n * view.raw.length, view.raw);
  }
  const calls = () => two.exits.hypercall ?? 0;
  return rate(runs, () => {
    const before = calls();
    while (calls() - before < 4_000) host.runOnce(10_000);
    return (calls() - before) * COPIES;
  });
}
