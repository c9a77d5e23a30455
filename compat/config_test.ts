import { assertEquals, assertStringIncludes } from "@std/assert";

const read = async (file: string) =>
  JSON.parse(await Deno.readTextFile(new URL(`../${file}`, import.meta.url)));

Deno.test("deno.jsr.json is deno.json without links, with a lock of its own", async () => {
  const { links: _, ...here } = await read("deno.json");
  const { lock, ...jsr } = await read("deno.jsr.json");
  assertEquals(jsr, here);
  assertEquals(lock, "./deno.jsr.lock");
});

Deno.test("each stand-in has the name of its package and a version inside the range", async () => {
  const { links, imports } = await read("deno.json");
  for (const folder of links) {
    const { name, version } = await read(`${folder}/deno.json`);
    const [, low] = imports[name].split("@^");
    assertStringIncludes(imports[name], `jsr:${name}@^`);
    assertEquals(version, low);
  }
});
