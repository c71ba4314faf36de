//! Stories of drivers that a framework drives: clients of KMDF of several versions (`drivers/c/kmdf_*.c`) and a stand-in framework
//! (`drivers/c/framework.c`), from binding to unloading.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use std::path::PathBuf;

use dirql::Bench;
use rig::{driver, finish, play, start};

/// The interface of `kmdf_echo.sys`.
const ECHO: &str = "interface:{6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815}";

/// Clients, and the version that their INFs say.
const ECHOES: [(&str, &str); 4] =
    [("kmdf_echo_1_9", "1.9"), ("kmdf_echo", "1.15"), ("kmdf_echo_1_33", "1.33"), ("kmdf_echo_min", "1.33")];

/// The INF `name`, for another build of its driver.
fn inf(name: &str, sys: &str, version: &str) -> PathBuf {
    rig::changed_inf(sys, &format!("{name}.inf"), |text| {
        text.replace(&format!("{name}.sys"), &format!("{sys}.sys")).replace("1.15", version)
    })
}

fn client(framework: &str, name: &str, sys: &str, version: &str) -> Bench {
    Bench::new()
        .driver(driver(&format!("{sys}.sys")))
        .framework(driver(&format!("{framework}.sys")))
        .inf(inf(name, sys, version))
}

fn echo() -> Bench {
    client("framework", "kmdf_echo", "kmdf_echo", "1.15")
}

#[test]
fn clients_of_every_version_serve_their_devices_by_the_table_that_they_are_given() {
    for (sys, version) in ECHOES {
        let machine = start(|| client("framework", "kmdf_echo", sys, version));
        play(
            &machine,
            &format!(
                r#"open {ECHO} as e
                write e "what is kept"; read e 100 expect "what is kept"
                ioctl e 0x222000 in "back" out 10 expect "back"
                ioctl e 0x222010 in "by a work item" out 20 expect "by a work item"
                close e"#
            ),
        );
        let report = finish(machine);
        assert!(report.prints.iter().any(|line| line.trim_end() == "echo: unloaded"), "{sys}: {report}");
    }
}
