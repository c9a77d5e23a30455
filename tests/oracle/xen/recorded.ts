/** The answers of Debian's Xen that come with the repository: JSON, compressed. */
import { gunzipSync, gzipSync } from "node:zlib";
import type { Recorded } from "./answers.ts";

const FILE = new URL("answers.json.gz", import.meta.url);

export async function recorded(): Promise<Recorded> {
  return JSON.parse(new TextDecoder().decode(gunzipSync(await Deno.readFile(FILE))));
}

export async function record(answers: Recorded): Promise<void> {
  await Deno.writeFile(FILE, gzipSync(JSON.stringify(answers), { level: 9 }));
}
