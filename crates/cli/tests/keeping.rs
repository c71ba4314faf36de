//! What a check keeps of its findings (`--keep DIR`), on an exhibit of the museum that is unloaded while its timer is set.

use std::fs;

use super::rig::{dirql, folder, root};

const NAME: &str = "01-unload-still-called";
/// From this package's folder, and from that of the crate `dirql` where the kept test is one of the tests.
const SYS: &str = "../../target/museum/timer_left_at_unload.sys";

fn keep(folder: &str) -> super::rig::Answer {
    dirql(["check", SYS, "--budget", "1", "--keep", folder])
}

#[test]
fn each_finding_leaves_a_script_a_record_and_a_test_that_show_it() {
    let made = folder("keeping").join("new");
    let answer = keep(made.to_str().unwrap());
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    let file = |ending: &str| made.join(format!("{NAME}{ending}"));
    assert_eq!(fs::read_dir(&made).unwrap().count(), 3);

    let script = file(".txt");
    let text = fs::read_to_string(&script).unwrap();
    assert!(text.starts_with("# unload-still-called: "), "{text}");
    let shown = dirql(["run", SYS, "--quiet", "--script", script.to_str().unwrap()]);
    assert_eq!(shown.code, Some(1), "{}", shown.said());
    assert!(shown.out.contains("unload-still-called"), "{}", shown.said());

    let replayed = dirql(["replay", file(".dirql").to_str().unwrap(), "--quiet"]);
    assert_eq!(replayed.code, Some(1), "{}", replayed.said());
    assert!(replayed.out.contains("unload-still-called"), "{}", replayed.said());

    // What is kept of the driver passes on its fixed twin, where it is among the tests of the crate `dirql`.
    let test = fs::read_to_string(file(".rs")).unwrap();
    let of_twin = test.replace("timer_left_at_unload", "timer_left_at_unload_fixed");
    let committed = fs::read_to_string(root().join("crates/dirql/tests/kept.rs")).unwrap();
    assert_eq!(of_twin, committed, "{of_twin}");
}

#[test]
fn what_is_in_the_registry_is_kept_too() {
    let made = folder("keeping-value").join("new");
    let sys = "../../target/museum/type_not_checked.sys";
    let answer = dirql(["check", sys, "--budget", "1", "--keep", made.to_str().unwrap()]);
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    let replayed = dirql(["replay", made.join("01-pool-leak.dirql").to_str().unwrap(), "--quiet"]);
    assert!(replayed.code == Some(1) && replayed.out.contains("pool-leak"), "{}", replayed.said());
    let test = fs::read_to_string(made.join("01-pool-leak.rs")).unwrap();
    let value = r"HKLM\System\ControlSet001\Services\type_not_checked\Parameters\Depth=";
    assert!(test.contains(&format!("        .registry_value(r#\"{value}\"one, ")), "{test}");
}

#[test]
fn a_folder_with_something_in_it_is_refused_before_anything_is_tried() {
    let made = folder("keeping-full");
    fs::write(made.join("mine.txt"), "").unwrap();
    let answer = keep(made.to_str().unwrap());
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("there is something in this folder"), "{}", answer.said());
    let answer = keep(made.join("mine.txt").to_str().unwrap());
    assert_eq!(answer.code, Some(2), "{}", answer.said());
}
