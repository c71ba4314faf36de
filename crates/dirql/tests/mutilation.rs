//! Thousands of mutilated driver images through load and first call: each is refused or ends in a report; none makes
//! dirql panic or hang.
//!
//! Images are run in child processes, a batch each, so that even a crash of ours would be reported with the image's number.

use std::process::{Child, Command, Stdio};

use dirql::explore::Rng;
use dirql::{Bench, Error};

use super::rig::{self, driver, try_play};

/// Children, and images each of them runs.
const BATCHES: u64 = 10;
const IMAGES: u64 = 250;
/// Set for a child process.
const VARIABLE: &str = "DIRQL_MUTILATION_BATCH";

fn below(rng: &mut Rng, limit: usize) -> usize {
    usize::try_from(rng.below(limit as u64)).unwrap()
}

/// Damages an image: in its headers, in a directory or in its code, a little or a lot.
fn mutilate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let headers = 0x400.min(bytes.len());
    // Behind this there are symbols only, which nothing runs.
    let sections = 0x2800.min(bytes.len());
    for _ in 0..=below(rng, 6) {
        let place = match below(rng, 3) {
            0 => below(rng, headers),
            _ => below(rng, sections),
        };
        match below(rng, 5) {
            0 => bytes[place] ^= 1 << below(rng, 8),
            1 => bytes[place] = 0xFF,
            2 => bytes[place] = 0,
            3 => bytes[place] = u8::try_from(below(rng, 256)).unwrap(),
            _ => {
                let end = (place + 1 + below(rng, 16)).min(bytes.len());
                let value = u8::try_from(below(rng, 256)).unwrap();
                bytes[place..end].fill(value);
            }
        }
    }
    if below(rng, 20) == 0 {
        bytes.truncate(below(rng, bytes.len()));
    }
}

/// Runs one mutilated image; what is wrong with dirql, if anything.
fn run(number: u64, folder: &std::path::Path) -> Result<(), String> {
    let mut rng = Rng::new(number);
    let (name, script) = [
        ("legacy.sys", r"open \\.\DirqlLegacy as f; write f text:hello; ioctl f 0x222000 in text:abc out 8"),
        ("queue.sys", r"open \\.\DirqlQueue as f; write f hex:01"),
        ("pciline.sys", r"open \\.\PciLine0 as f; write f hex:01"),
    ][below(&mut rng, 3)];
    let mut bytes = std::fs::read(driver(name)).unwrap();
    mutilate(&mut bytes, &mut rng);
    let path = folder.join("mutilated.sys");
    std::fs::write(&path, &bytes).unwrap();
    let bench = Bench::new().driver(&path).device("pci9052").instruction_budget(200_000);
    let machine = match bench.start() {
        Ok(machine) => machine,
        Err(Error::Input(_)) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    // What the driver does wrong is its own affair.
    let _ = try_play(&machine, script);
    match machine.finish().our_fault {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

#[test]
fn one_batch() {
    let Some(batch) = std::env::var(VARIABLE).ok().and_then(|text| text.parse::<u64>().ok()) else { return };
    let folder = rig::folder("mutilation");
    for number in batch * IMAGES..(batch + 1) * IMAGES {
        println!("image {number}");
        if let Err(fault) = run(number, &folder) {
            panic!("image {number}: {fault}");
        }
    }
}

fn child(batch: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "mutilation::one_batch", "--nocapture"]).env(VARIABLE, batch.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn no_mutilated_image_makes_dirql_panic_or_hang() {
    for pair in (0..BATCHES).collect::<Vec<_>>().chunks(2) {
        let children: Vec<(u64, Child)> = pair.iter().map(|batch| (*batch, child(*batch))).collect();
        for (batch, child) in children {
            let output = finished(child, batch);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let last =
                said.lines().rev().find(|line| line.starts_with("image ")).unwrap_or("no image").to_owned();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "batch {batch} ended with {} at {last}\n{complaint}",
                output.status
            );
        }
    }
}

/// Waits for a child, and ends it if it takes far longer than any batch does.
fn finished(mut child: Child, batch: u64) -> std::process::Output {
    // Its few lines fit the pipes, so that it never waits for us.
    for _ in 0..1800 {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    panic!(
        "batch {batch} hangs: {}",
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default()
    );
}
