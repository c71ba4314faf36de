//! Generated instruction sequences, run natively and translated: same registers, flags, memory and count, whole and in
//! slices.
//!
//! `DIRQL_ROUNDS` says how many sequences of each family there are, `DIRQL_SEED` with which number the first one is made.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed; what is not tested is said"
)]

use std::collections::BTreeSet;

use engine::windows::IMAGES;
use engine::{Cpu, Protection};

use super::rig::native::Native;
use super::rig::{CODE, Hook, Rig};
use super::sequences::{Family, Random, data, encode, function, listing, place};

/// Data in reach of RIP-relative operands of both copies.
const DATA: u64 = IMAGES.base + 0x3000_0000;
const DATA_SIZE: u64 = 0x1000;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// The data page after a run, with the flags reduced to those that mean something.
fn result(rig: &Rig) -> Vec<u8> {
    let mut data = vec![0; DATA_SIZE as usize];
    rig.engine.read_bytes(DATA, &mut data).unwrap();
    data[0x881] &= 0x0C;
    data[0x882..0x888].fill(0);
    data
}

fn difference(expected: &[u8], got: &[u8]) -> Option<String> {
    let at = (0..expected.len()).find(|i| expected[*i] != got[*i])?;
    Some(format!("{}: natively {:#x}, translated {:#x}", place(at), expected[at], got[at]))
}

/// Runs what lies at `CODE`, in slices of so many instructions; how many it has.
fn run(rig: &Rig, slices: Option<u64>) -> (Result<u64, engine::Leave>, u64) {
    *rig.on_slice.borrow_mut() = slices.map(|n| -> Hook {
        Box::new(move |rig| {
            rig.engine.set_slice(n);
            Ok(())
        })
    });
    rig.engine.set_slice(slices.unwrap_or(u64::MAX));
    let before = rig.engine.now();
    let ended = rig.call(&[DATA]);
    (ended, rig.engine.now() - before)
}

/// Holds `rounds` sequences against the host's processor; answers which forms of instructions came up.
fn compare(rig: &Rig, family: Family, rounds: u64) -> BTreeSet<String> {
    rig.map(DATA, DATA_SIZE);
    let native = Native::new(0x1000);
    let (mut compared, mut forms) = (0, BTreeSet::new());
    let first = number("DIRQL_SEED", 1);
    for seed in first..first + rounds {
        let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let instructions = function(family, &mut random, DATA);
        let (Some(here), Some(there)) = (encode(&instructions, CODE), encode(&instructions, native.base()))
        else {
            continue;
        };
        let data = data(&mut random, DATA_SIZE as usize);
        rig.engine.write_bytes(DATA, &data).unwrap();
        native.load(&there);
        native.call(native.base(), [DATA, 0, 0, 0]);
        let expected = result(rig);
        rig.engine.protect(CODE, 0x1000, Protection::READ_WRITE);
        rig.engine.write_bytes(CODE, &here).unwrap();
        rig.engine.protect(CODE, 0x1000, Protection::READ_EXECUTE);
        let mut counts = Vec::new();
        for slices in [None, Some(1), Some(1 + random.below(9))] {
            rig.engine.write_bytes(DATA, &data).unwrap();
            let (ended, count) = run(rig, slices);
            assert_eq!(ended, Ok(0), "seed {seed}: {:?}\n{}", rig.fault.borrow(), listing(&instructions));
            counts.push(count);
            if let Some(difference) = difference(&expected, &result(rig)) {
                panic!("seed {seed}, slices {slices:?}: {difference}\n{}", listing(&instructions));
            }
        }
        assert!(counts.iter().all(|c| *c == counts[0]), "seed {seed}: instruction counts {counts:?}");
        compared += 1;
        forms.extend(instructions.iter().map(|i| format!("{:?}", i.code())));
    }
    assert!(compared > rounds * 9 / 10, "{compared} of {rounds} were encodable");
    forms
}

fn count(forms: &BTreeSet<String>, which: impl Fn(&str) -> bool) -> usize {
    forms.iter().filter(|form| which(form)).count()
}

#[test]
fn translated_sequences_do_what_native_ones_do() {
    let forms = compare(&Rig::new(&[0xC3]), Family::Sse, number("DIRQL_ROUNDS", 3_000));
    assert!(forms.len() > 500, "only {} forms of instructions came up", forms.len());
}

#[test]
fn translated_avx_sequences_do_what_native_ones_do() {
    let missing = Cpu::X86_64V3.missing();
    if !missing.is_empty() {
        return eprintln!("skipped: this host lacks {missing:?}");
    }
    let rig = Rig::new(&[0xC3]);
    rig.engine.imitate(Cpu::X86_64V3);
    let forms = compare(&rig, Family::Avx, number("DIRQL_ROUNDS", 1_500));
    assert!(rig.log().iter().any(|line| line == "Extended(Avx)"), "the guest was asked");
    let vex = count(&forms, |form| form.starts_with("VEX_"));
    assert!(vex > 400, "only {vex} forms of VEX instructions came up");
    for kind in ["gather", "maskmov", "Vfm", "Vcvtph2ps", "Vptest", "Pdep", "Vzeroupper"] {
        assert!(count(&forms, |form| form.contains(kind)) > 0, "no {kind} came up");
    }
}

#[test]
fn translated_x87_and_mmx_sequences_do_what_native_ones_do() {
    let rig = Rig::new(&[0xC3]);
    let forms = compare(&rig, Family::X87, number("DIRQL_ROUNDS", 1_500));
    assert!(rig.log().iter().any(|line| line == "Extended(X87)"), "the guest was asked");
    let (x87, mmx) =
        (count(&forms, |form| form.starts_with('F')), count(&forms, |form| form.contains("mm_mmm64")));
    assert!(x87 > 80 && mmx > 40, "only {x87} forms of x87's and {mmx} of MMX's instructions came up");
}
