//! Cards that answer sooner or later than is usual (`--platform quick-cards=N`, `late-cards=N`, `silent-cards`), by exhibits of the museum.

use std::path::PathBuf;

use serde_json::Value;

use super::rig::{Answer, dirql, root};

/// Both ask the educational device for a factorial (0x222004), and to interrupt at once (0x22200C).
const READS_TWICE: Exhibit = Exhibit { name: "acknowledged_by_another_read", interface: "10c3b0e7" };
const NOTED_LATE: Exhibit = Exhibit { name: "started_before_noted", interface: "10c3b00e" };
const LIMITED: Exhibit = Exhibit { name: "limit_hides_loss", interface: "10c3b0e1" };

struct Exhibit {
    name: &'static str,
    /// How the GUID of its interface begins.
    interface: &'static str,
}

impl Exhibit {
    fn file(&self, ending: &str) -> PathBuf {
        let path = root().join("target/museum").join(format!("{}{ending}", self.name));
        assert!(path.is_file(), "{} is not there: run `cargo xtask museum --build` first", path.display());
        path
    }

    /// What comes of these commands on a card so prompt; `twin` is `_fixed`, or nothing.
    fn run(&self, twin: &str, platform: &str, options: &[&str], commands: &str) -> Answer {
        let guid = format!("{{{}-6a1d-4c0e-9b53-207de1884f36}}", self.interface);
        let device = r"\\.\PCI#VEN_1234&DEV_11E8&SUBSYS_11001AF4&REV_10#3&11583659&0&08";
        let script = format!("open \"{device}#{guid}\" as h overlapped; {commands}");
        let [sys, inf] = [".sys", ".inf"].map(|kind| self.file(&format!("{twin}{kind}")).into_os_string());
        let words = ["run".into(), sys, "--inf".into(), inf, "--platform".into(), platform.into()];
        let more = ["--device", "edu", "--do", &script].into_iter().chain(options.iter().copied());
        dirql(words.into_iter().chain(more.map(Into::into)))
    }
}

#[test]
fn a_cause_between_two_reads_of_a_service_routine_comes_on_a_card_that_is_quick() {
    let commands =
        "async a ioctl h 0x222004 in u32:1 out 4; async b ioctl h 0x22200c; must-end a b; join a; join b";
    let run = |twin, platform| READS_TWICE.run(twin, platform, &["--quiet"], commands);
    for usual in ["", "quick-cards=1", "quick-cards=2"] {
        let answer = run("", usual);
        assert_eq!(answer.code, Some(0), "{usual}: {}", answer.said());
    }
    let answer = run("", "quick-cards=3");
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    assert!(answer.out.contains("request-forgotten"), "{}", answer.said());
    for quick in ["quick-cards=1", "quick-cards=2", "quick-cards=3", "quick-cards=4"] {
        let answer = run("_fixed", quick);
        assert_eq!(answer.code, Some(0), "{quick}: {}", answer.said());
    }
}

#[test]
fn a_card_that_is_quick_at_once_is_done_before_the_driver_has_noted_what_it_began() {
    let commands = "async a ioctl h 0x222004 in u32:5 out 4; must-end a; cancel a; join a";
    let code = |twin, platform| NOTED_LATE.run(twin, platform, &["--quiet"], commands).code;
    assert_eq!(code("", "quick-cards=1"), Some(0), "no access comes between");
    assert_eq!(code("", "quick-cards=0"), Some(1));
    assert_eq!(code("_fixed", "quick-cards=0"), Some(0));
}

#[test]
fn a_card_that_was_quick_once_answers_what_it_is_asked_behind_that() {
    let commands = "async a ioctl h 0x222004 in u32:1 out 4; async b ioctl h 0x22200c; join a; join b; \
                    ioctl h 0x222004 in u32:5 out 4 expect u32:120";
    for quick in ["quick-cards=1", "quick-cards=2"] {
        let answer = READS_TWICE.run("_fixed", quick, &["--quiet"], commands);
        assert_eq!(answer.code, Some(0), "{quick}: {}", answer.said());
    }
}

#[test]
fn a_late_card_answers_as_a_drivers_time_limit_ends_and_a_silent_one_behind_all() {
    // In the machine's time, of which the driver allows two seconds.
    let took = |platform: &str, expected: &str| {
        let commands = format!("ioctl h 0x222004 in u32:5 out 4 expect {expected}; close h");
        let answer = LIMITED.run("_fixed", platform, &["--json"], &commands);
        assert_eq!(answer.code, Some(0), "{platform}: {}", answer.said());
        let end: Value = serde_json::from_str(answer.out.lines().last().unwrap()).unwrap();
        end["summary"]["time_ns"].as_u64().unwrap()
    };
    let limit = 2_000_000_000;
    assert!(took("", "u32:120") < limit);
    assert!(took("late-cards=1", "u32:120") >= limit, "both come at once, and the card is first");
    assert!(took("late-cards=2", "STATUS_IO_TIMEOUT") >= limit);
    assert!(took("silent-cards", "STATUS_IO_TIMEOUT") >= limit);
}

#[test]
fn a_card_that_a_script_silences_answers_again_when_the_script_says_so() {
    let code = |between: &str| {
        let commands = format!(
            "cards silent; ioctl h 0x222004 in u32:5 out 4 expect STATUS_IO_TIMEOUT; {between}async a ioctl h 0x222004 in u32:5 out 4; must-end a; join a expect u32:120"
        );
        LIMITED.run("_fixed", "", &["--quiet"], &commands).code
    };
    assert_eq!(code("cards answer; "), Some(0));
    assert_ne!(code(""), Some(0));
}

#[test]
fn a_card_that_a_script_makes_late_is_so_once() {
    // The driver gives each request two seconds.
    let ask = "ioctl h 0x222004 in u32:5 out 4 expect u32:120 and within";
    let code = |commands: String| LIMITED.run("_fixed", "", &["--quiet"], &commands).code;
    assert_eq!(code(format!("cards late; {ask} 1s")), Some(1), "it comes as the limit ends");
    assert_eq!(code(format!("cards late; {ask} 3s; {ask} 1s")), Some(0));
    assert_eq!(code(format!("{ask} 1s")), Some(0));
}
