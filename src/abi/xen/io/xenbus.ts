/**
 * States of a device's two ends, as they stand in xenstore.
 * Source: Xen public/io/xenbus.h.
 *
 * @module
 */

export const XenbusState = {
  Unknown: 0,
  Initialising: 1,
  InitWait: 2,
  Initialised: 3,
  Connected: 4,
  Closing: 5,
  Closed: 6,
  Reconfiguring: 7,
  Reconfigured: 8,
} as const;
