//! What a user's own `cargo test` does: tests of one program, each with a bench, on as many threads as there are.

use std::sync::Barrier;
use std::thread;

use dirql::{Bench, Error, Outcome};

use super::rig::driver;

fn bench() -> Bench {
    Bench::new().driver(driver("legacy.sys"))
}

/// A test as a user writes it.
fn a_test_of_a_user(text: &[u8]) {
    let machine = bench().start().unwrap();
    let file = machine.open(r"\\.\DirqlLegacy").unwrap();
    assert_eq!(file.write(text).unwrap(), text.len() as u64);
    file.close().unwrap();
    machine.finish().expect_clean();
}

#[test]
fn one_test_of_a_program_makes_a_machine() {
    a_test_of_a_user(b"one");
}

#[test]
fn another_test_of_the_same_program_makes_one_too() {
    a_test_of_a_user(b"another");
}

#[test]
fn threads_that_make_a_bench_at_once_get_it_in_turn() {
    let threads = 8;
    let all_are_there = Barrier::new(threads);
    thread::scope(|scope| {
        let tests: Vec<_> = (0..threads)
            .map(|number| {
                let all_are_there = &all_are_there;
                scope.spawn(move || {
                    all_are_there.wait();
                    a_test_of_a_user(format!("thread {number}").as_bytes());
                })
            })
            .collect();
        for test in tests {
            test.join().unwrap();
        }
    });
}

#[test]
fn a_test_that_panics_with_a_machine_gives_its_turn_on() {
    let failed = thread::scope(|scope| {
        let fails = scope.spawn(|| {
            let _machine = bench().start().unwrap();
            panic!("an assertion of the user's fails, as it is to here");
        });
        fails.join()
    });
    assert!(failed.is_err());
    a_test_of_a_user(b"after it");
}

#[test]
fn a_thread_that_has_a_machine_is_told_so_at_once() {
    let machine = bench().start().unwrap();
    let second = bench().start().err().expect("it would wait for itself");
    assert_eq!(second, Error::Busy);
    assert!(second.to_string().contains("this thread has a machine already"), "{second}");
    assert_eq!(machine.finish().outcome(), Outcome::Clean);
}
