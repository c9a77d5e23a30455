import { assert, assertEquals, assertThrows } from "@std/assert";
import { ACPI_HEADER, FADT, RSDP } from "../abi/boot/acpi.ts";
import { makeAcpi, writeAcpi } from "./acpi.ts";
import { eisaId, integer, nameString, packageOf } from "./aml.ts";
import { Struct } from "./struct.ts";
import { TestMemory } from "./testing.ts";

const sum = (bytes: Uint8Array) => bytes.reduce((n, b) => n + b, 0) & 0xff;

Deno.test("makeAcpi() chains RSDP, RSDT, XSDT and the tables, all sums zero", () => {
  const memory = new TestMemory(4 << 20);
  const acpi = makeAcpi({ processors: 2 });
  writeAcpi(memory, acpi);
  const at = (address: number) => memory.bytes.subarray(address);
  const rsdp = new Struct(RSDP, at(acpi.rsdp));
  assertEquals([sum(at(acpi.rsdp).subarray(0, 20)), sum(at(acpi.rsdp).subarray(0, 36))], [0, 0]);
  const table = (address: number) => {
    const length = new Struct(ACPI_HEADER, at(address)).get("length");
    const bytes = at(address).subarray(0, length);
    assertEquals(sum(bytes), 0);
    return { signature: new TextDecoder().decode(bytes.subarray(0, 4)), bytes };
  };
  const rsdt = table(rsdp.get("rsdt")), xsdt = table(rsdp.get("xsdt"));
  const entries = (bytes: Uint8Array, width: 4 | 8) =>
    Array.from(
      { length: (bytes.length - 36) / width },
      (_, i) => new Struct({ a: [36, width] }, bytes, i * width).get("a"),
    );
  assertEquals(entries(rsdt.bytes, 4), entries(xsdt.bytes, 8));
  assertEquals(entries(rsdt.bytes, 4).map((a) => table(a).signature), ["FACP", "APIC"]);
  const fadt = new Struct(FADT, at(entries(rsdt.bytes, 4)[0]));
  assertEquals(table(fadt.get("dsdt")).signature, "DSDT");
  assertEquals([fadt.get("pm1a_cnt_blk"), fadt.get("sci_int")], [0x604, 9]);
  assertEquals(fadt.big("x_dsdt"), BigInt(fadt.get("dsdt")));
});

Deno.test("makeAcpi() leaves the MADT out without APICs, and refuses odd numbers", () => {
  const names = makeAcpi({ apic: false }).tables.map((t) => t.name);
  assertEquals(names, ["RSDP", "FACS", "DSDT", "FADT", "RSDT", "XSDT"]);
  assertThrows(() => makeAcpi({ processors: 0 }), Error, "processors is 0; expected 1 to 254");
});

Deno.test("writeAcpi() tells where each table went", () => {
  const written: number[] = [];
  const memory = {
    size: 1 << 20,
    write: (gpa: number) => void written.push(gpa),
    read: () => new Uint8Array(),
  };
  const acpi = makeAcpi();
  const regions = writeAcpi(memory, acpi);
  assertEquals(written, acpi.tables.map((t) => t.address));
  assertEquals(regions[0], { what: "ACPI RSDP", start: 0xe0000, end: 0xe0024 });
});

Deno.test("AML terms have the bytes of the specification", () => {
  assertEquals(eisaId("PNP0501"), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
  assertEquals(integer(0x1234), [0x0b, 0x34, 0x12]);
  assertEquals(nameString("\\_S5"), [0x5c, 0x5f, 0x53, 0x35, 0x5f]);
  assertEquals(packageOf([0], [1]), [0x12, 4, 2, 0, 1]);
  const long = packageOf(...Array.from({ length: 100 }, () => [0]));
  assertEquals(long.slice(0, 4), [0x12, 0x47, 0x06, 100]); // 0x67 bytes in two length bytes
  assertThrows(() => eisaId("pnp1"), RangeError);
});

/** Debian's disassembler, from acpica-tools, when it is installed. */
async function iasl(): Promise<string | undefined> {
  for (const path of [Deno.env.get("XVM_IASL"), "iasl"]) {
    try {
      if (path && (await new Deno.Command(path, { args: ["-v"] }).output()).success) return path;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

const disassembler = await iasl();

Deno.test({
  name: "iasl disassembles every table without errors, and compiles the DSDT again",
  ignore: disassembler === undefined,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const run = async (...args: string[]) => {
        const { stdout, stderr, success } = await new Deno.Command(disassembler!, {
          args,
          cwd: folder,
        }).output();
        return {
          success,
          text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr),
        };
      };
      for (const { name, bytes } of makeAcpi({ processors: 4 }).tables) {
        if (name === "RSDP") continue; // a structure, not a table
        await Deno.writeFile(`${folder}/${name}.dat`, bytes);
        const { success, text } = await run("-d", `${name}.dat`);
        assert(success && !/error|warning|incorrect checksum/i.test(text), text);
      }
      const { success, text } = await run("DSDT.dsl");
      assert(success && /0 Errors, 0 Warnings/.test(text), text);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
