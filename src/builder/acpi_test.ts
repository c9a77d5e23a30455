import { type AbiWidth, fixed, sizeOf, View } from "../abi/layout.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { ACPI_ADDRESS, ACPI_HEADER, FADT, MADT, MADT_TYPE, RSDP } from "../abi/boot/acpi.ts";
import { makeAcpi, writeAcpi } from "./acpi.ts";
import { eisaId, integer, nameString, packageOf } from "./aml.ts";
import { TestMemory } from "./testing.ts";

const sum = (bytes: Uint8Array) => bytes.reduce((n, b) => n + b, 0) & 0xff;

Deno.test("makeAcpi() chains RSDP, RSDT, XSDT and the tables, all sums zero", () => {
  const memory = new TestMemory(4 << 20);
  const acpi = makeAcpi({ processors: 2 });
  writeAcpi(memory, acpi);
  const at = (address: number) => memory.bytes.subarray(address);
  const rsdp = fixed(RSDP, at(acpi.rsdp));
  assertEquals([sum(at(acpi.rsdp).subarray(0, 20)), sum(at(acpi.rsdp).subarray(0, 36))], [0, 0]);
  const table = (address: number) => {
    const length = fixed(ACPI_HEADER, at(address)).get("length");
    const bytes = at(address).subarray(0, length);
    assertEquals(sum(bytes), 0);
    return { signature: new TextDecoder().decode(bytes.subarray(0, 4)), bytes };
  };
  const rsdt = table(rsdp.get("rsdt")), xsdt = table(Number(rsdp.get("xsdt")));
  const entries = (bytes: Uint8Array, width: AbiWidth) => {
    const each = width / 8;
    return Array.from(
      { length: (bytes.length - 36) / each },
      (_, i) => Number(new View(ACPI_ADDRESS, width, bytes, 36 + i * each).get("at")),
    );
  };
  assertEquals(entries(rsdt.bytes, 32), entries(xsdt.bytes, 64));
  assertEquals(entries(rsdt.bytes, 32).map((a) => table(a).signature), ["FACP", "APIC"]);
  const fadt = fixed(FADT, at(entries(rsdt.bytes, 32)[0]));
  assertEquals(table(fadt.get("dsdt")).signature, "DSDT");
  assertEquals([fadt.get("pm1a_cnt_blk"), fadt.get("sci_int")], [0x604, 9]);
  assertEquals(fadt.get("x_dsdt"), BigInt(fadt.get("dsdt")));
});

Deno.test("makeAcpi() leaves the MADT out without APICs, and refuses odd numbers", () => {
  const names = makeAcpi({ apic: false }).tables.map((t) => t.name);
  assertEquals(names, ["RSDP", "FACS", "DSDT", "FADT", "RSDT", "XSDT"]);
  for (const processors of [0, 17, 2.5]) {
    assertThrows(
      () => makeAcpi({ processors }),
      RangeError,
      `processors: a whole number from 1 to 16 was expected, ${processors} was given`,
    );
  }
});

Deno.test("makeAcpi() gives one processor the tables that a guest of one has always had", () => {
  const digest = (apic: boolean) => {
    const hash = createHash("sha256");
    for (const { name, address, bytes } of makeAcpi({ apic }).tables) {
      hash.update(`${name} ${address} `).update(bytes);
    }
    return hash.digest("hex").slice(0, 16);
  };
  assertEquals([digest(true), digest(false)], ["ee2db0df5aa1fb9e", "72c3fa5143f47cad"]);
});

/** Entries of a MADT: type and bytes. */
function madtOf(processors: number): number[][] {
  const { bytes } = makeAcpi({ processors }).tables.find(({ name }) => name === "MADT")!;
  const entries: number[][] = [];
  for (let at = sizeOf(MADT, 64); at < bytes.length; at += bytes[at + 1]) {
    entries.push([...bytes.subarray(at, at + bytes[at + 1])]);
  }
  return entries;
}

Deno.test("the MADT lists every processor, an IO-APIC of another id, and NMI at LINT1 of all", () => {
  for (let n = 1; n <= 16; n++) {
    const entries = madtOf(n), of = (type: number) => entries.filter((e) => e[0] === type);
    assertEquals(
      of(MADT_TYPE.localApic),
      Array.from({ length: n }, (_, id) => [0, 8, id, id, 1, 0, 0, 0]),
    );
    const [[, , id, , ...rest]] = of(MADT_TYPE.ioApic);
    assertEquals([id, rest], [n % 16, [0, 0, 0xc0, 0xfe, 0, 0, 0, 0]]);
    assertEquals(of(MADT_TYPE.override), [
      [2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
      [2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0],
    ]);
    assertEquals(of(MADT_TYPE.localApicNmi), [[4, 6, 0xff, 0, 0, 1]]);
    assertEquals(entries.length, n + 4);
  }
});

Deno.test("the DSDT has a device for each of several processors, its _UID that of the MADT", () => {
  for (const n of [1, 2, 16]) {
    const { bytes } = makeAcpi({ processors: n }).tables.find(({ name }) => name === "DSDT")!;
    const text = String.fromCharCode(...bytes);
    const names = Array.from({ length: 16 }, (_, i) => `C00${i.toString(16).toUpperCase()}`);
    const uids = names.flatMap((name) => {
      const at = text.indexOf(`${name}\x08_HID\x0dACPI0007\0\x08_UID`);
      if (at < 0) return [];
      const value = at + name.length + 20;
      return [bytes[value] === 0x0a ? bytes[value + 1] : bytes[value]];
    });
    assertEquals(uids, n === 1 ? [] : Array.from({ length: n }, (_, uid) => uid));
  }
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
      for (const { name, bytes } of makeAcpi({ processors: 16 }).tables) {
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
