//! String instructions, each in every form: with a device on either side they do what the processor does with memory, element by element, and those
//! of ports ask for each element.

use engine::windows::DEVICE;
use iced_x86::code_asm::{CodeAssembler, al, ax, eax, ecx, edx, qword_ptr, r8, r9, rax, rcx, rdi, rdx, rsi};

use super::rig::{DATA, Rig, assemble};

/// Where the code leaves its registers.
const LEFT: u64 = DATA + 0x800;
/// What RSI and RDI point into: 64 bytes each.
const SOURCE: u64 = 0x100;
const DESTINATION: u64 = 0x200;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Prefix {
    None,
    Rep,
    Repne,
}

const PREFIXES: [Prefix; 3] = [Prefix::None, Prefix::Rep, Prefix::Repne];
const NAMES: [&str; 5] = ["movs", "stos", "lods", "cmps", "scas"];

fn string(a: &mut CodeAssembler, name: &str, bytes: u64, prefix: Prefix) {
    let a = match (prefix, name) {
        (Prefix::None, _) => a,
        (Prefix::Rep, "cmps" | "scas") => a.repe(),
        (Prefix::Rep, _) => a.rep(),
        (Prefix::Repne, _) => a.repne(),
    };
    match (name, bytes) {
        ("movs", 1) => a.movsb(),
        ("movs", 2) => a.movsw(),
        ("movs", 4) => a.movsd(),
        ("movs", _) => a.movsq(),
        ("stos", 1) => a.stosb(),
        ("stos", 2) => a.stosw(),
        ("stos", 4) => a.stosd(),
        ("stos", _) => a.stosq(),
        ("lods", 1) => a.lodsb(),
        ("lods", 2) => a.lodsw(),
        ("lods", 4) => a.lodsd(),
        ("lods", _) => a.lodsq(),
        ("cmps", 1) => a.cmpsb(),
        ("cmps", 2) => a.cmpsw(),
        ("cmps", 4) => a.cmpsd(),
        ("cmps", _) => a.cmpsq(),
        ("scas", 1) => a.scasb(),
        ("scas", 2) => a.scasw(),
        ("scas", 4) => a.scasd(),
        _ => a.scasq(),
    }
    .unwrap();
}

/// `rcx` RSI, `rdx` RDI, `r8` the count, `r9` the accumulator: what they and the flags are afterwards goes to [`LEFT`].
fn code(name: &str, bytes: u64, prefix: Prefix, down: bool) -> Vec<u8> {
    assemble(|a| {
        a.push(rsi).unwrap();
        a.push(rdi).unwrap();
        a.mov(rsi, rcx).unwrap();
        a.mov(rdi, rdx).unwrap();
        a.mov(rcx, r8).unwrap();
        a.mov(rax, r9).unwrap();
        a.xor(edx, edx).unwrap();
        if down {
            a.std().unwrap();
        }
        string(a, name, bytes, prefix);
        a.cld().unwrap();
        a.mov(r8, LEFT).unwrap();
        a.mov(qword_ptr(r8), rax).unwrap();
        a.lahf().unwrap();
        a.seto(al).unwrap();
        a.movzx(eax, ax).unwrap();
        a.mov(qword_ptr(r8 + 8), rax).unwrap();
        a.mov(qword_ptr(r8 + 16), rcx).unwrap();
        a.mov(qword_ptr(r8 + 24), rsi).unwrap();
        a.mov(qword_ptr(r8 + 32), rdi).unwrap();
        a.pop(rdi).unwrap();
        a.pop(rsi).unwrap();
        a.ret().unwrap();
    })
}

/// What the two stretches hold: alike up to an element in the middle, so that comparisons end there.
fn contents(bytes: u64) -> (Vec<u8>, Vec<u8>) {
    let source: Vec<u8> = (0..64u8).map(|at| at.wrapping_mul(37).wrapping_add(0x70)).collect();
    let mut destination = source.clone();
    let middle = usize::try_from(32 + 2 * bytes).unwrap();
    destination[middle] ^= 0x80;
    destination[middle - 4 * usize::try_from(bytes).unwrap()] ^= 0x81;
    (source, destination)
}

/// Registers, flags and both stretches afterwards, with RSI and RDI in memory or in a device.
fn outcome(code: &[u8], bytes: u64, count: u64, places: (bool, bool)) -> (Vec<u64>, Vec<u8>, Vec<u8>) {
    let rig = Rig::new(code);
    let (source, destination) = contents(bytes);
    let place = |in_device: bool, at: u64| if in_device { DEVICE.base + at } else { DATA + at };
    for (in_device, at, data) in [(places.0, SOURCE, &source), (places.1, DESTINATION, &destination)] {
        let offset = usize::try_from(at).unwrap();
        if in_device {
            rig.device.borrow_mut()[offset..offset + 64].copy_from_slice(data);
        } else {
            rig.engine.write_bytes(DATA + at, data).unwrap();
        }
    }
    let (from, to) = (place(places.0, SOURCE) + 32, place(places.1, DESTINATION) + 32);
    let accumulator = u64::from_le_bytes(source[32..40].try_into().unwrap());
    rig.call(&[from, to, count, accumulator]).unwrap();
    let mut left = [0; 40];
    rig.engine.read_bytes(LEFT, &mut left).unwrap();
    let mut words: Vec<u64> =
        left.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    words[3] = words[3].wrapping_sub(from);
    words[4] = words[4].wrapping_sub(to);
    let after = |in_device: bool, at: u64| {
        let mut data = vec![0; 64];
        let offset = usize::try_from(at).unwrap();
        if in_device {
            data.copy_from_slice(&rig.device.borrow()[offset..offset + 64]);
        } else {
            rig.engine.read_bytes(DATA + at, &mut data).unwrap();
        }
        data
    };
    let stretches = (after(places.0, SOURCE), after(places.1, DESTINATION));
    drop(rig);
    (words, stretches.0, stretches.1)
}

fn is_as_in_memory(name: &str) {
    for bytes in [1, 2, 4, 8] {
        for prefix in PREFIXES {
            for down in [false, true] {
                let code = code(name, bytes, prefix, down);
                for count in [0, 1, 4] {
                    let expected = outcome(&code, bytes, count, (false, false));
                    for places in [(true, false), (false, true), (true, true)] {
                        let seen = outcome(&code, bytes, count, places);
                        assert_eq!(
                            seen, expected,
                            "{name} of {bytes}, {prefix:?}, down {down}, {count} elements, in a device {places:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn moves_stores_and_loads_do_with_a_device_what_they_do_with_memory() {
    NAMES[..3].iter().for_each(|name| is_as_in_memory(name));
}

#[test]
fn comparisons_and_scans_end_where_they_do_in_memory_with_the_same_flags() {
    NAMES[3..].iter().for_each(|name| is_as_in_memory(name));
}

/// The ports' forms; memory or a device on the other side.
#[test]
fn strings_of_ports_ask_for_each_element_in_either_direction() {
    for (input, bytes) in [(true, 1u64), (true, 2), (true, 4), (false, 1), (false, 2), (false, 4)] {
        for (repeated, down, in_device) in
            [(false, false, false), (true, false, false), (true, true, false), (true, false, true)]
        {
            let rig = Rig::new(&assemble(|a| {
                a.push(rsi).unwrap();
                a.push(rdi).unwrap();
                a.mov(rsi, rcx).unwrap();
                a.mov(rdi, rcx).unwrap();
                a.mov(ecx, 3).unwrap();
                a.mov(rdx, 0x1F0u64).unwrap();
                if down {
                    a.std().unwrap();
                }
                let code = if repeated { a.rep() } else { &mut *a };
                match (input, bytes) {
                    (true, 1) => code.insb(),
                    (true, 2) => code.insw(),
                    (true, _) => code.insd(),
                    (false, 1) => code.outsb(),
                    (false, 2) => code.outsw(),
                    (false, _) => code.outsd(),
                }
                .unwrap();
                a.cld().unwrap();
                a.mov(rax, if input { rdi } else { rsi }).unwrap();
                a.pop(rdi).unwrap();
                a.pop(rsi).unwrap();
                a.ret().unwrap();
            }));
            let what = format!("input {input} of {bytes}, rep {repeated}, down {down}, device {in_device}");
            let base = if in_device { DEVICE.base } else { DATA };
            let step = if down { bytes.wrapping_neg() } else { bytes };
            let begin = base + 0x40;
            let count = if repeated { 3 } else { 1 };
            let content: Vec<u8> = (0..0x80).collect();
            rig.device.borrow_mut()[..0x80].copy_from_slice(&content);
            rig.engine.write_bytes(DATA, &content).unwrap();
            assert_eq!(rig.call(&[begin]).unwrap(), begin.wrapping_add(step.wrapping_mul(count)), "{what}");
            let log = rig.log();
            let ports: Vec<&String> = log.iter().filter(|line| line.contains("0x1f0")).collect();
            assert_eq!(ports.len() as u64, count, "{what}: {log:?}");
            for index in 0..count {
                let at = usize::try_from(begin.wrapping_add(step.wrapping_mul(index)) - base).unwrap();
                let width = usize::try_from(bytes).unwrap();
                let mut seen = [0; 4];
                if in_device {
                    seen[..width].copy_from_slice(&rig.device.borrow()[at..at + width]);
                } else {
                    rig.engine.read_bytes(base + at as u64, &mut seen[..width]).unwrap();
                }
                let value = u32::from_le_bytes(seen);
                if input {
                    assert_eq!(value, 0x1122_3344 & u32::MAX >> (32 - 8 * bytes), "{what}");
                } else {
                    let written = format!("out 0x1f0 {bytes} {value:#x}");
                    assert_eq!(*ports[usize::try_from(index).unwrap()], written, "{what}");
                }
            }
        }
    }
}
