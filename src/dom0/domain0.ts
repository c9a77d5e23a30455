/**
 * Domain 0: no vCPU, but event channels, grants that it has mapped, and the services behind them: xenstore,
 * and the consoles of domains. What its channels bring is done at once, within the hypercall that sent it.
 */
import { GNTMAP, GNTTAB } from "../abi/xen/grant_table.ts";
import { HVM_PARAM } from "../abi/xen/hvm/params.ts";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { list, record, whole } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";
import type { Domain } from "../xen/domain.ts";
import { type Channel, type EventAbi, EventChannels } from "../xen/event_channels.ts";
import { GrantTable } from "../xen/grants.ts";
import type { Host } from "../xen/host.ts";
import type { Peer } from "../xen/interface.ts";
import { SharedMemory } from "../xen/shared_memory.ts";
import { StoreClient } from "./client.ts";
import { ConsoleRing } from "./consoled.ts";
import { domainNodes } from "./domain_nodes.ts";
import { domainPath } from "./paths.ts";
import type { RingPage } from "./ring.ts";
import { Xenstored } from "./xenstored.ts";

/** A domain whose console is served: the port of domain 0's end. */
interface Served {
  readonly port: number;
  readonly ring: ConsoleRing;
}
const CONSOLES = record({
  consoles: list(record({ domain: whole(1, 0x7fef), port: whole(1, 4095) })),
});

export class Domain0 implements Peer {
  readonly id = 0;
  readonly channels: EventChannels;
  readonly grants: GrantTable;
  readonly xenstored: Xenstored;
  /** Its own requests to xenstore. */
  readonly store: StoreClient;
  readonly #memory: SharedMemory;
  /** By domain. */
  readonly #consoles = new Map<number, Served>();

  constructor(readonly host: Host) {
    const { machine, peers, world } = host, { frames } = host;
    if (!frames) throw new Error("domain 0 needs a hypervisor on the host: make a domain first");
    const memory = this.#memory = new SharedMemory(machine);
    const owner = {
      id: 0,
      vcpuCount: 0,
      get count() {
        return machine.count;
      },
      channelsOf: (id: number) => peers.get(id)?.channels,
      polled: () => {},
      bound: () => {},
    };
    this.channels = new EventChannels(owner, {
      twoLevel: calling((channel) => this.#told(channel)),
    });
    const tableOf = (id: number) => peers.get(id)?.grants;
    this.grants = new GrantTable(0, memory, frames, undefined, tableOf, () => {});
    this.xenstored = new Xenstored({
      exists: (id) => peers.has(id),
      page: (id) => this.#page(id, GNTTAB.RESERVED_XENSTORE),
      letGo: (id) => this.#unmap(id, GNTTAB.RESERVED_XENSTORE),
      bind: (id, port) => Math.max(0, this.channels.bindInterdomain(id, port)),
      unbind: (port) => void this.channels.close(port),
      notify: (port) => void this.channels.send(port),
      now: () => host.now,
    });
    this.store = new StoreClient(this.xenstored, {
      enter: (type, payload) =>
        world.enter("xenstore", 0, { type: NAMES.get(type), bytes: payload }),
    });
    peers.set(0, this);
    this.#register(host.blocks.part("domain 0"));
  }

  /** An event has come on one of its ports. */
  #told({ port, domain }: Channel): void {
    if (this.xenstored.connection(domain)?.port === port) this.xenstored.run();
    const served = this.#consoles.get(domain);
    if (served?.port === port) served.ring.run();
  }

  /** The page that a domain has granted by one of the reserved references; undefined: it has not. */
  #page(domain: number, ref: number): RingPage | undefined {
    const frame = this.#mapped(domain, ref)?.[1].frame ?? this.#map(domain, ref);
    if (frame === undefined) return undefined;
    const memory = this.#memory, { machine } = memory, at = frame * 4096;
    return {
      word: (offset) => memory.word(at + offset),
      setWord: (offset, value) => memory.setWord(at + offset, value),
      read: (offset, length) => machine.ram.slice(at + offset, at + offset + length),
      write: (offset, bytes) => machine.write(at + offset, bytes),
    };
  }
  #mapped(domain: number, ref: number) {
    return this.grants.maps.find(([, map]) => map.domain === domain && map.ref === ref);
  }
  #map(domain: number, ref: number): number | undefined {
    const handle = this.grants.map(domain, ref, GNTMAP.host_map, -1);
    return this.grants.mapping(handle)?.frame;
  }

  #unmap(domain: number, ref: number): void {
    const mapped = this.#mapped(domain, ref);
    if (!mapped) return;
    // Nobody can refuse domain 0 that.
    this.grants.refusesUnmap(mapped[0]);
    this.grants.unmap(mapped[0]);
  }

  /**
   * A domain that knows Xen is on the host: xenstore and its console are served from now on, and
   * xenstore says what there is of it.
   */
  introduce(domain: Domain): void {
    const { id, xen } = domain;
    if (!xen) throw new Error(`domain ${id} does not know Xen`);
    const port = (param: number) => Number(xen.params.get(param) ?? 0n);
    this.#serve(domain, this.channels.bindInterdomain(id, port(HVM_PARAM.CONSOLE_EVTCHN)));
    for (const { path, value, permissions } of domainNodes(domain)) {
      this.store.write(path, value);
      this.store.setPermissions(path, permissions);
    }
    this.xenstored.introduce(id, port(HVM_PARAM.STORE_EVTCHN));
    domain.onState.add(({ kind }) => {
      if (kind === "shutdown") this.xenstored.shutdown(id);
      if (kind === "destroyed") this.#release(domain);
    });
  }
  #serve(domain: Domain, port: number): void {
    const { id } = domain;
    const ring = new ConsoleRing({
      page: () => this.#page(id, GNTTAB.RESERVED_CONSOLE),
      notify: () => void this.channels.send(this.#consoles.get(id)!.port),
    }, {
      write: (bytes) => {
        for (const byte of bytes) domain.emit(byte, "ring");
        return bytes.length;
      },
    });
    this.#consoles.set(id, { port, ring });
    domain.ring = ring;
    ring.register(domain.blocks);
  }
  /** The domain is no more. */
  #release({ id }: Domain): void {
    this.xenstored.gone(id);
    if (this.store.exists(domainPath(id))) this.store.remove(domainPath(id));
    const served = this.#consoles.get(id);
    if (served) this.channels.close(served.port);
    this.#consoles.delete(id);
    this.#unmap(id, GNTTAB.RESERVED_CONSOLE);
  }

  #register(blocks: StateRegister): void {
    this.channels.register(blocks);
    this.grants.register(blocks);
    this.xenstored.register(blocks);
    blocks.register<{ consoles: readonly { domain: number; port: number }[] }>({
      name: "consoles",
      version: 1,
      shape: CONSOLES,
      save: () => ({
        consoles: [...this.#consoles].map(([domain, { port }]) => ({ domain, port })),
      }),
      load: ({ consoles }) => {
        for (const { domain, port } of consoles) {
          const served = this.#consoles.get(domain);
          if (served) this.#consoles.set(domain, { ...served, port });
        }
      },
    });
  }
}

const NAMES = new Map<number, string>(Object.entries(XS).map(([name, type]) => [type, name]));

/** Events of domain 0: whoever waits for them is called. */
const calling = (call: (channel: Channel) => void): EventAbi => ({
  name: "two-level",
  ports: 4096,
  isBusy: () => false,
  isPending: () => false,
  isMasked: () => false,
  raise: (channel) => {
    call(channel);
    return false;
  },
  clear: () => {},
  mask: () => {},
  unmask: () => {},
  setPriority: () => 0,
});
