/**
 * What XenStore costs by itself: reads a second through its wire protocol, from the bytes of a request in
 * the domain's page to those of the answer. What the guest's code for it costs comes on top.
 */
import { XS } from "../../src/abi/xen/io/xs_wire.ts";
import { StoreClient } from "../../src/dom0/client.ts";
import { encodeMessage } from "../../src/dom0/messages.ts";
import { TestStore } from "../../src/dom0/testing.ts";
import { bytesOfText } from "../../src/dom0/text.ts";
import { rate } from "./exits.ts";

const READS = 100_000;
const PATH = "device/vif/0/state";

/** Reads a second of CPU time, as the median of `runs`; others are connected, and watch. */
export function storeReadRate(runs: number): number {
  const test = new TestStore(), client = new StoreClient(test.daemon);
  const [domain] = [1, 2, 3].map((id) => test.domain(id));
  client.mkdir("/local/domain/1");
  client.setPermissions("/local/domain/1", ["n1"]);
  client.watch("/", () => {});
  domain.write(PATH, "4");
  const request = encodeMessage({
    type: XS.READ,
    request: 1,
    transaction: 0,
    payload: bytesOfText(`${PATH}\0`),
  });
  return rate(runs, () => {
    for (let n = 0; n < READS; n++) {
      domain.put(request);
      if (domain.take().length !== 17) throw new Error("a read was not answered");
    }
    return READS;
  });
}
