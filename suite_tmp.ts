import { run } from "./tests/conformance/run.ts";
import { biosTimer, TestDev } from "./tests/conformance/testdev.ts";
const [dir, type, cpu, ...names] = Deno.args;
for (const n of names) {
  const t = performance.now();
  try {
    const r = await run({
      image: `${dir}/${n}.flat`,
      type: type as never,
      cpu: (cpu.split("/")[0]) as never,
      cpuid: cpu.split("/")[1] as never,
      limit: 300e6,
      prepare: (b) => {
        b.board.bus.attach(new TestDev(b.board));
        if (n.endsWith("realmode")) biosTimer(b);
      },
    });
    const l = r.text.split(/\r?\n/);
    console.log(
      n,
      r.end,
      "pass",
      l.filter((x) => x.startsWith("PASS")).length,
      "fail",
      l.filter((x) => x.startsWith("FAIL")).length,
      "skip",
      l.filter((x) => x.startsWith("SKIP")).length,
      ((performance.now() - t) / 1000).toFixed(1) + "s",
      r.instructions,
    );
    if (r.end !== "exit (status 1)") {
      console.log(
        "   ",
        l.filter((x) => x.startsWith("FAIL")).slice(0, 6).join("\n    "),
        "\n   ",
        l.slice(-4).join("|"),
        "\n   ",
        r.lastFault,
      );
    }
  } catch (e) {
    console.log(n, "ERROR", String(e).slice(0, 300));
  }
}
