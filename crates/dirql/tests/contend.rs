//! 64 threads of `contend.sys` on 64 processors contend for one spin lock: what it guards is exact under every policy.

use dirql::Bench;
use dirql::explore::Policy;
use engine::{Chooser, Defaults, Point, SLICE_END};

use super::rig::{driver, start};

const THREADS: usize = 64;
const CODE: u32 = 0x0022_2000;
/// How often each thread takes the lock.
const ROUNDS: u32 = 5;
/// Words of a TALLY.
const WORDS: usize = 4 + THREADS + 1;

/// Slices of one length, at whose end the strand gives way.
struct Sliced(u64);

impl Chooser for Sliced {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        u32::from(point == SLICE_END)
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        self.0
    }
}

/// The story: 64 threads, each takes the lock so many times. The trace's hash.
fn contended(processors: u32, group_size: u32, chooser: &dyn Fn() -> Box<dyn Chooser>) -> u128 {
    let machine = start(|| {
        let bench = Bench::new().driver(driver("contend.sys")).processors(processors).group_size(group_size);
        bench.decided_by(chooser())
    });
    let file = machine.open(r"\\.\DirqlContend").unwrap();
    let answer = file.device_control(CODE, &ROUNDS.to_le_bytes(), 4 * u32::try_from(WORDS).unwrap());
    let answer = answer.unwrap_or_else(|error| panic!("{error}"));
    file.close().unwrap();
    let report = machine.finish();
    report.expect_clean();
    let words: Vec<u32> = answer.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let entries: u32 = THREADS.try_into().unwrap();
    let case = format!("{processors} processors in groups of {group_size}: {words:?}");
    assert_eq!(words[0], entries * ROUNDS, "each entry counts once; {case}");
    assert_eq!(words[1], 0, "no two are inside at once; {case}");
    assert_eq!(words[2], 0, "each thread stays on its processor; {case}");
    assert_eq!(words[3], processors.min(entries), "all processors take part; {case}");
    assert_eq!(words[4..4 + THREADS], [ROUNDS; THREADS], "{case}");
    let numbers = entries * (entries + 1) / 2;
    assert_eq!(words[4 + THREADS], numbers * (ROUNDS * (ROUNDS + 1) / 2), "{case}");
    report.trace_hash
}

/// The same in one group and in four; each run comes again.
fn in_one_group_and_in_four(chooser: &dyn Fn() -> Box<dyn Chooser>) {
    for group_size in [64, 16] {
        let first = contended(64, group_size, chooser);
        assert_eq!(contended(64, group_size, chooser), first, "groups of {group_size}: the same run again");
    }
}

#[test]
fn sixty_four_processors_that_run_until_they_are_blocked() {
    in_one_group_and_in_four(&|| Box::new(Defaults));
}

#[test]
fn sixty_four_processors_at_random() {
    for seed in 1..=3 {
        in_one_group_and_in_four(&|| Policy::random(seed).chooser());
    }
}

#[test]
fn sixty_four_processors_in_slices() {
    for slice in [1, 7, 100] {
        in_one_group_and_in_four(&|| Box::new(Sliced(slice)));
    }
}

#[test]
fn the_same_threads_on_fewer_processors() {
    for processors in [1, 2, 63] {
        contended(processors, 16, &|| Box::new(Sliced(3)));
    }
}
