import { Command, EnumType, ValidationError } from "@cliffy/command";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";

function demo(seen: unknown[]) {
  const boot = new Command()
    .description("Boots.")
    .type("cpu", new EnumType(["intel", "amd"]))
    .option("-m, --memory-size <size:integer>", "Memory.", { default: 64 })
    .option("--cpu <cpu:cpu>", "Vendor.")
    .option("--stats", "Numbers.")
    .option("-p, --port <n:number>", "Ports.", { collect: true })
    .arguments("<kernel:string> [rest...:string]")
    .action((options, kernel, ...rest) => {
      const size: number = options.memorySize;
      const cpu: "intel" | "amd" | undefined = options.cpu;
      const stats: true | undefined = options.stats;
      const ports: number[] | undefined = options.port;
      seen.push({ size, cpu, stats, ports, kernel: kernel.toUpperCase(), rest });
    });
  return new Command().name("demo").version("1.2.3").noExit()
    .action(() => void seen.push("root"))
    .command("boot", boot);
}

Deno.test("Command reads options and arguments by their declared types", async () => {
  const seen: unknown[] = [];
  await demo(seen).parse([
    "boot",
    "-m",
    "128",
    "--cpu",
    "amd",
    "--port",
    "1",
    "-p",
    "2",
    "k",
    "a",
    "b",
  ]);
  await demo(seen).parse(["boot", "k", "--stats"]);
  await demo(seen).parse([]);
  assertEquals(seen, [
    { size: 128, cpu: "amd", stats: undefined, ports: [1, 2], kernel: "K", rest: ["a", "b"] },
    { size: 64, cpu: undefined, stats: true, ports: undefined, kernel: "K", rest: [] },
    "root",
  ]);
});

Deno.test("Command refuses wrong use with a ValidationError of exit code 2", async () => {
  const wrong = async (args: string[], part: string) => {
    const error = await assertRejects(() => demo([]).parse(args), ValidationError);
    assertStringIncludes(error.message, part);
    assertEquals(error.exitCode, 2);
  };
  await wrong(["boot"], "kernel");
  await wrong(["boot", "k", "--cpu", "arm"], `"--cpu" must be one of: intel, amd; but got "arm"`);
  await wrong(["boot", "k", "-m", "many"], `must be of type "integer", but got "many"`);
  await wrong(["boot", "k", "--nothing"], "--nothing");
  await wrong(["bot"], "bot");
});

Deno.test("Command passes what follows the first argument when it stops early", async () => {
  let seen: unknown;
  const run = new Command().arguments("<file:string> [args...:string]").stopEarly()
    .action((_options, file, ...args) => void (seen = [file, ...args]));
  await new Command().noExit().command("run", run).parse(["run", "a.ts", "--x", "-y"]);
  assertEquals(seen, ["a.ts", "--x", "-y"]);
});

Deno.test("Command lets an error of the action through", async () => {
  const cmd = new Command().action(() => {
    throw new RangeError("ours");
  });
  await assertRejects(() => cmd.parse([]), RangeError, "ours");
});
