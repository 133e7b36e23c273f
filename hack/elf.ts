// SPDX-License-Identifier: Apache-2.0
/**
 * Two changes to the official Node executable, so that one file runs on a host that lacks libatomic:
 * symbols for debuggers are left out, and the one function that Node takes from libatomic is brought along.
 * 64-bit little-endian ELF for x86-64 and AArch64. Every assumption is checked; a Node that breaks one fails
 * the build. Why this and not a library beside it: docs/adr/0004-single-executable.md.
 */

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PF_X = 1;
const SHT_DYNSYM = 11;
const SHF_ALLOC = 2n;
const STV_HIDDEN = 2;

const DT_NULL = 0n;
const DT_NEEDED = 1n;
const DT_STRTAB = 5n;
const DT_RUNPATH = 29n;
const DT_PLTRELSZ = 2n;
const DT_JMPREL = 0x17n;
const DT_VERSYM = 0x6ffffff0n;
const DT_VERNEED = 0x6ffffffen;
const DT_VERNEEDNUM = 0x6fffffffn;

const LIBRARY = "libatomic.so.1";
const FUNCTION = "__atomic_compare_exchange";
/** Where libraries may lie that a host lacks: the folder `lib` beside the executable. Fits into the freed name. */
const RUNPATH = "$ORIGIN/lib";

interface Machine {
  /** `bool f(size, object, expected, desired, order, order)` for size 8; any other size traps. */
  readonly code: Buffer;
  /** How a call passes size 8 as first argument. */
  readonly sizeEight: readonly Buffer[];
  readonly pltHeaderBytes: number;
  /** The address that a call at this offset of the text goes to, else undefined. */
  callTarget(text: Buffer, offset: number, address: number): number | undefined;
  readonly instructionBytes: number;
}

const MACHINES: Readonly<Record<number, Machine>> = {
  // x86-64
  62: {
    code: Buffer.from(
      // cmp $8,%rdi; jne 2f; mov (%rdx),%rax; mov (%rcx),%rcx; lock cmpxchg %rcx,(%rsi); jne 1f
      `4883ff08 7519 488b02 488b09 f0480fb10e 7506${
        // mov $1,%eax; ret; 1: mov %rax,(%rdx); xor %eax,%eax; ret; 2: ud2
        " b801000000 c3 488902 31c0 c3 0f0b"
      }`.replaceAll(" ", ""),
      "hex",
    ),
    sizeEight: [Buffer.from("bf08000000", "hex")],
    pltHeaderBytes: 16,
    callTarget: (text, offset, address) =>
      text[offset] === 0xe8 ? address + 5 + text.readInt32LE(offset + 1) : undefined,
    instructionBytes: 1,
  },
  // AArch64
  183: {
    code: words(
      [0xf100201f, 0x540001a1], // cmp x0,#8; b.ne 3f
      [0xf9400044, 0xf9400063], // ldr x4,[x2]; ldr x3,[x3]
      [0xc85ffc25, 0xeb0400bf, 0x540000a1], // 1: ldaxr x5,[x1]; cmp x5,x4; b.ne 2f
      [0xc806fc23, 0x35ffff86], // stlxr w6,x3,[x1]; cbnz w6,1b
      [0x52800020, 0xd65f03c0], // mov w0,#1; ret
      [0xf9000045, 0x52800000, 0xd65f03c0], // 2: str x5,[x2]; mov w0,#0; ret
      [0xd4200000], // 3: brk #0
    ),
    sizeEight: [words([0xd2800100]), words([0x52800100])],
    pltHeaderBytes: 32,
    callTarget: (text, offset, address) => {
      const word = text.readUInt32LE(offset);
      return word >>> 26 === 0b100101 ? address + ((word << 6) >> 6) * 4 : undefined;
    },
    instructionBytes: 4,
  },
};

function words(...groups: readonly (readonly number[])[]): Buffer {
  const all = groups.flat();
  const bytes = Buffer.alloc(all.length * 4);
  all.forEach((word, index) => bytes.writeUInt32LE(word, index * 4));
  return bytes;
}

interface Segment {
  readonly header: number;
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
}

interface Section {
  readonly header: number;
  readonly type: number;
  readonly flags: bigint;
  readonly offset: number;
  readonly sizeBytes: number;
}

function segmentsOf(elf: Buffer): Segment[] {
  const start = Number(elf.readBigUInt64LE(32));
  return Array.from({ length: elf.readUInt16LE(56) }, (_, index) => {
    const header = start + index * 56;
    return {
      header,
      type: elf.readUInt32LE(header),
      flags: elf.readUInt32LE(header + 4),
      offset: Number(elf.readBigUInt64LE(header + 8)),
      address: Number(elf.readBigUInt64LE(header + 16)),
      fileBytes: Number(elf.readBigUInt64LE(header + 32)),
      memoryBytes: Number(elf.readBigUInt64LE(header + 40)),
    };
  });
}

function sectionsOf(elf: Buffer): Section[] {
  const start = Number(elf.readBigUInt64LE(40));
  return Array.from({ length: elf.readUInt16LE(60) }, (_, index) => {
    const header = start + index * 64;
    return {
      header,
      type: elf.readUInt32LE(header + 4),
      flags: elf.readBigUInt64LE(header + 8),
      offset: Number(elf.readBigUInt64LE(header + 24)),
      sizeBytes: Number(elf.readBigUInt64LE(header + 32)),
    };
  });
}

function requireElf(elf: Buffer): void {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2 || elf[5] !== 1) {
    throw new Error("not a 64-bit little-endian ELF file");
  }
}

/** A copy without the sections that only debuggers read (symbol table, DWARF); what is loaded stays as it was. */
export function stripSymbols(elf: Buffer): Buffer {
  requireElf(elf);
  const sections = sectionsOf(elf);
  const last = sections.findLastIndex((section) => (section.flags & SHF_ALLOC) !== 0n);
  const kept = sections.slice(0, last + 1);
  if (kept.slice(1).some((section) => (section.flags & SHF_ALLOC) === 0n)) {
    throw new Error("a section for debuggers lies between those that are loaded");
  }
  const end = Math.max(...segmentsOf(elf).map((segment) => segment.offset + segment.fileBytes));
  const names = elf.subarray(...rangeOf(sections[elf.readUInt16LE(62)]));
  const tableAt = alignUp(end + names.length, 8);
  const result = Buffer.alloc(tableAt + (kept.length + 1) * 64);
  elf.copy(result, 0, 0, end);
  names.copy(result, end);
  const tableStart = Number(elf.readBigUInt64LE(40));
  elf.copy(result, tableAt, tableStart, tableStart + kept.length * 64);
  // The names of sections come last: same header, new place.
  const namesHeader = tableAt + kept.length * 64;
  elf.copy(result, namesHeader, sections[elf.readUInt16LE(62)]?.header ?? 0);
  result.fill(0, namesHeader + 64);
  result.writeBigUInt64LE(BigInt(end), namesHeader + 24);
  result.writeBigUInt64LE(BigInt(tableAt), 40);
  result.writeUInt16LE(kept.length + 1, 60);
  result.writeUInt16LE(kept.length, 62);
  return result;
}

/** The libraries that the dynamic loader must find, in the file's order. */
export function neededLibraries(elf: Buffer): string[] {
  requireElf(elf);
  const dynamic = readDynamic(elf);
  const strings = offsetOf(elf, valueOf(dynamic, DT_STRTAB));
  return dynamic.entries
    .filter(([tag]) => tag === DT_NEEDED)
    .map(([, value]) => stringAt(elf, strings + Number(value)));
}

/**
 * Changes `elf` in place so that it needs no libatomic: its one function goes into the padding behind the
 * code, its symbol becomes a hidden one of the executable, and the library leaves the list of needed ones.
 * The name's place then holds a RUNPATH, so that libraries in `lib` beside the executable are found first.
 */
export function bringAtomicAlong(elf: Buffer): void {
  requireElf(elf);
  const machine = MACHINES[elf.readUInt16LE(18)];
  if (machine === undefined) throw new Error(`no code for ELF machine ${elf.readUInt16LE(18)}`);
  const dynamic = readDynamic(elf);
  const symbol = takeVersionedSymbol(elf, dynamic);
  checkCallers(elf, machine, pltEntryOf(elf, machine, dynamic, symbol.index));
  const address = appendCode(elf, machine.code);
  elf.writeUInt8(STV_HIDDEN, symbol.offset + 5);
  // Any section but "undefined" makes the loader use the value; 0xfff1 is an absolute one.
  elf.writeUInt16LE(0xfff1, symbol.offset + 6);
  elf.writeBigUInt64LE(BigInt(address), symbol.offset + 8);
  replaceNeeded(elf, dynamic);
}

interface Dynamic {
  readonly offset: number;
  /** Tag and value, up to and with the first DT_NULL. */
  readonly entries: readonly (readonly [bigint, bigint])[];
}

function readDynamic(elf: Buffer): Dynamic {
  const segment = segmentsOf(elf).find((each) => each.type === PT_DYNAMIC);
  if (segment === undefined) throw new Error("not dynamically linked");
  const entries: [bigint, bigint][] = [];
  for (let at = segment.offset; at < segment.offset + segment.fileBytes; at += 16) {
    entries.push([elf.readBigUInt64LE(at), elf.readBigUInt64LE(at + 8)]);
    if (entries.at(-1)?.[0] === DT_NULL) break;
  }
  return { offset: segment.offset, entries };
}

function valueOf(dynamic: Dynamic, tag: bigint): number {
  const value = dynamic.entries.find(([each]) => each === tag)?.[1];
  if (value === undefined) throw new Error(`no dynamic entry ${tag}`);
  return Number(value);
}

function offsetOf(elf: Buffer, address: number): number {
  const segment = segmentsOf(elf).find(
    (each) => each.type === PT_LOAD && address >= each.address && address < each.address + each.fileBytes,
  );
  if (segment === undefined) throw new Error(`address ${address} is not in the file`);
  return address - segment.address + segment.offset;
}

function stringAt(elf: Buffer, offset: number): string {
  return elf.toString("latin1", offset, elf.indexOf(0, offset));
}

/** Finds the only symbol of the library and takes the library's versions out of the list of needed versions. */
function takeVersionedSymbol(
  elf: Buffer,
  dynamic: Dynamic,
): { readonly index: number; readonly offset: number } {
  const strings = offsetOf(elf, valueOf(dynamic, DT_STRTAB));
  const versions = new Set<number>();
  let previous: number | undefined;
  let at = offsetOf(elf, valueOf(dynamic, DT_VERNEED));
  for (;;) {
    const next = elf.readUInt32LE(at + 12);
    if (stringAt(elf, strings + elf.readUInt32LE(at + 4)) === LIBRARY) {
      let aux = at + elf.readUInt32LE(at + 8);
      for (let count = elf.readUInt16LE(at + 2); count > 0; count--) {
        versions.add(elf.readUInt16LE(aux + 6));
        aux += elf.readUInt32LE(aux + 12);
      }
      if (previous !== undefined) {
        elf.writeUInt32LE(next === 0 ? 0 : elf.readUInt32LE(previous + 12) + next, previous + 12);
      } else {
        // The list's first entry: the second takes its place in the dynamic table.
        writeValue(elf, dynamic, DT_VERNEED, BigInt(valueOf(dynamic, DT_VERNEED) + next));
      }
      break;
    }
    if (next === 0) throw new Error(`${LIBRARY} is not among the needed versions`);
    previous = at;
    at += next;
  }
  writeValue(elf, dynamic, DT_VERNEEDNUM, BigInt(valueOf(dynamic, DT_VERNEEDNUM) - 1));

  const table = sectionsOf(elf).find((section) => section.type === SHT_DYNSYM);
  if (table === undefined) throw new Error("no table of dynamic symbols");
  const versionOf = offsetOf(elf, valueOf(dynamic, DT_VERSYM));
  const found: number[] = [];
  for (let index = 0; index < table.sizeBytes / 24; index++) {
    if (versions.has(elf.readUInt16LE(versionOf + index * 2) & 0x7fff)) found.push(index);
  }
  const names = found.map((index) => stringAt(elf, strings + elf.readUInt32LE(table.offset + index * 24)));
  const [index] = found;
  if (index === undefined || names.join() !== FUNCTION) {
    throw new Error(`expected only ${FUNCTION} of ${LIBRARY}, found ${names.join(", ") || "nothing"}`);
  }
  elf.writeUInt16LE(1, versionOf + index * 2);
  return { index, offset: table.offset + index * 24 };
}

function writeValue(elf: Buffer, dynamic: Dynamic, tag: bigint, value: bigint): void {
  const index = dynamic.entries.findIndex(([each]) => each === tag);
  elf.writeBigUInt64LE(value, dynamic.offset + index * 16 + 8);
}

/** The address that calls of the symbol go to. */
function pltEntryOf(elf: Buffer, machine: Machine, dynamic: Dynamic, symbolIndex: number): number {
  const relocations = offsetOf(elf, valueOf(dynamic, DT_JMPREL));
  const count = valueOf(dynamic, DT_PLTRELSZ) / 24;
  for (let index = 0; index < count; index++) {
    if (elf.readUInt32LE(relocations + index * 24 + 12) !== symbolIndex) continue;
    const text = codeSegment(elf);
    const plt = sectionsOf(elf).find(({ header }) => sectionName(elf, header) === ".plt");
    if (plt === undefined) throw new Error("no .plt");
    return plt.offset - text.offset + text.address + machine.pltHeaderBytes + index * 16;
  }
  throw new Error(`${FUNCTION} is not called through the procedure linkage table`);
}

function sectionName(elf: Buffer, header: number): string {
  const names = sectionsOf(elf)[elf.readUInt16LE(62)];
  return stringAt(elf, (names?.offset ?? 0) + elf.readUInt32LE(header));
}

/** Only objects of 8 bytes are compared: every call loads that size shortly before. */
function checkCallers(elf: Buffer, machine: Machine, target: number): void {
  const segment = codeSegment(elf);
  const text = elf.subarray(segment.offset, segment.offset + segment.fileBytes);
  let callers = 0;
  for (let at = 0; at + 5 <= text.length; at += machine.instructionBytes) {
    if (machine.callTarget(text, at, segment.address + at) !== target) continue;
    const before = text.subarray(Math.max(0, at - 64), at);
    if (!machine.sizeEight.some((bytes) => before.includes(bytes))) {
      throw new Error(`the call at ${(segment.address + at).toString(16)} compares another size than 8`);
    }
    callers++;
  }
  if (callers === 0) throw new Error(`no call of ${FUNCTION} found`);
}

function codeSegment(elf: Buffer): Segment {
  const [segment, other] = segmentsOf(elf).filter(
    (each) => each.type === PT_LOAD && (each.flags & PF_X) !== 0,
  );
  if (segment === undefined || other !== undefined) throw new Error("expected one segment of code");
  return segment;
}

/** Writes the code into the zeros between the code segment and what follows; returns its address. */
function appendCode(elf: Buffer, code: Buffer): number {
  const segment = codeSegment(elf);
  const end = segment.offset + segment.fileBytes;
  const at = alignUp(end, 16);
  const following = Math.min(
    ...segmentsOf(elf)
      .filter((each) => each.type === PT_LOAD && each.offset > segment.offset)
      .map((each) => each.offset),
  );
  const fits = at + code.length <= following && segment.fileBytes === segment.memoryBytes;
  if (!fits || elf.subarray(end, at + code.length).some((byte) => byte !== 0)) {
    throw new Error("no room behind the code");
  }
  code.copy(elf, at);
  const size = BigInt(at + code.length - segment.offset);
  elf.writeBigUInt64LE(size, segment.header + 32);
  elf.writeBigUInt64LE(size, segment.header + 40);
  return segment.address + (at - segment.offset);
}

/** The library's entry becomes the RUNPATH, and its name the path. */
function replaceNeeded(elf: Buffer, dynamic: Dynamic): void {
  const strings = offsetOf(elf, valueOf(dynamic, DT_STRTAB));
  const index = dynamic.entries.findIndex(
    ([tag, value]) => tag === DT_NEEDED && stringAt(elf, strings + Number(value)) === LIBRARY,
  );
  const name = dynamic.entries[index]?.[1];
  if (name === undefined) throw new Error(`${LIBRARY} is not needed`);
  if (dynamic.entries.some(([tag]) => tag === DT_RUNPATH)) throw new Error("has a RUNPATH already");
  elf.writeBigUInt64LE(DT_RUNPATH, dynamic.offset + index * 16);
  elf.write(RUNPATH.padEnd(LIBRARY.length, "\0"), strings + Number(name), "latin1");
}

function rangeOf(section: Section | undefined): [number, number] {
  if (section === undefined) throw new Error("no names of sections");
  return [section.offset, section.offset + section.sizeBytes];
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
