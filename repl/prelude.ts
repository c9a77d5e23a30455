import { publicApi } from "./api.ts";
import type { Session } from "./session.ts";

/** Makes what mod.ts exports known at the prompt, under its own names and as `xvm`. */
export async function prelude(session: Session): Promise<void> {
  const api = await publicApi();
  session.evaluator.define({ ...api, xvm: api });
}
