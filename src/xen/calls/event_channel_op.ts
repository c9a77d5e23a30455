/** event_channel_op (Xen public/event_channel.h): the guest's words for {@linkcode EventChannels}. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { EVTCHNOP, EVTCHNSTAT } from "../../abi/xen/event_channel.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import type { Call } from "../call.ts";
import { ofSelf } from "./domid.ts";
import { type Handler, operations } from "./operations.ts";

const { EBUSY, EFAULT, EINVAL, ESRCH } = XEN_ERRNO;

/** A domain as a guest names it: DOMID_SELF, or a number. */
const named = ({ xen }: Call, id: number): number => id === DOMID.SELF ? xen.id : id;
/** A binding gave a port, or an errno. */
function bound(port: number, put: (port: number) => unknown): number {
  if (port < 0) return port;
  put(port);
  return 0;
}

const ops = operations(EVTCHNOP, {
  alloc_unbound: (call, args) => {
    const { channels } = call.xen, refused = ofSelf(call, args.get("dom"));
    if (refused) return refused;
    const port = channels.allocUnbound(named(call, args.get("remote_dom")));
    return bound(port, (port) => args.set("port", port));
  },
  bind_interdomain: (call, args) => {
    const { channels } = call.xen, remote = named(call, args.get("remote_dom"));
    const port = channels.bindInterdomain(remote, args.get("remote_port"));
    return bound(port, (port) => args.set("local_port", port));
  },
  bind_virq: ({ xen: { channels } }, args) => {
    const port = channels.bindVirq(args.get("virq"), args.get("vcpu"));
    return bound(port, (port) => args.set("port", port));
  },
  bind_ipi: ({ xen: { channels } }, args) =>
    bound(channels.bindIpi(args.get("vcpu")), (port) => args.set("port", port)),
  bind_pirq: ({ xen: { channels } }, args) =>
    bound(channels.bindPirq(args.get("pirq")), (port) => args.set("port", port)),
  close: ({ xen }, args) => xen.channels.close(args.get("port")),
  send: ({ xen }, args) => xen.channels.send(args.get("port")),
  status: (call, args) => {
    const refused = ofSelf(call, args.get("dom"));
    const port = args.get("port"), { channels } = call.xen;
    // The port is looked at before the right to ask; others' ports are taken to be as many as its own.
    if (refused !== -ESRCH && !channels.isPort(port)) return -EINVAL;
    if (refused) return refused;
    if (channels.handlers.has(port)) return -XEN_ERRNO.EACCES;
    const channel = channels.get(port);
    const { state = "closed", vcpu = 0, domain = 0, peer = 0, virq = 0, pirq = 0 } = channel ?? {};
    args.setAll({ status: EVTCHNSTAT[state], vcpu });
    if (state === "unbound") args.set("u.unbound.dom", domain);
    if (state === "virq") args.set("u.virq", virq);
    if (state === "pirq") args.set("u.pirq", pirq);
    if (state === "interdomain") {
      args.setAll({ "u.interdomain.dom": domain, "u.interdomain.port": peer });
    }
    return 0;
  },
  bind_vcpu: ({ xen }, args) => xen.channels.bindVcpu(args.get("port"), args.get("vcpu")),
  unmask: ({ xen }, args) => xen.channels.unmask(args.get("port")),
  reset: (call, args) => {
    const refused = ofSelf(call, args.get("dom"));
    if (refused) return refused;
    call.xen.channels.closeAll();
    return 0;
  },
  init_control: ({ xen: { channels } }, args) => {
    const { linkBits = 0 } = channels.abis.fifo ?? {};
    args.set("link_bits", linkBits);
    return channels.initControl(args.get("vcpu"), args.get("control_gfn"), args.get("offset"));
  },
  expand_array: ({ xen: { channels } }, args) => channels.expandArray(args.get("array_gfn")),
  set_priority: ({ xen }, args) => xen.channels.setPriority(args.get("port"), args.get("priority")),
});

/** How Xen itself goes on with a reset that took long: none is under way when a guest calls it. */
const RESET_CONT = 14;

export const eventChannelOp: Handler = (call) => {
  if (call.low(0) !== RESET_CONT) return ops(call);
  const args = call.get(EVTCHNOP.reset.arg, call.wide(1));
  return args ? ofSelf(call, args.get("dom")) || -EBUSY : -EFAULT;
};
