import { assertEquals } from "@std/assert";
import { kindsPage } from "./kinds_page.ts";

Deno.test("docs/kinds.md is what the rows give: deno task kinds writes it", async () => {
  assertEquals(
    await Deno.readTextFile(new URL("../docs/kinds.md", import.meta.url)),
    kindsPage(),
  );
});
