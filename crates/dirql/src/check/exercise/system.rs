//! What happens in the system that drivers ask to get to know of: processes begin and end and map images, are opened, and use the registry.

use super::super::survey::{Operation, Survey, Watched};
use super::effort::{Kind, Plan};
use super::steps::{open, opened, tried, tried_in_turn, words};

/// Paths of images, to which one comes that is longer than `MAX_PATH`.
const IMAGES: [&str; 2] = [r"C:\Windows\System32\user32.dll", r"C:\a.dll"];
const LONG: usize = 300;
/// The longest command line that there can be: `A` again and again.
const LONGEST_COMMAND: &str = "fill:0x00410041:65532";
const KEY: &str = r"\Registry\Machine\Software\Dirql-";
/// Data of values: their types and bytes, the last as long as few expect.
const VALUES: [&str; 4] =
    ["dword u32:1", "sz utf16:\"text\" + u16:0", "binary hex:00", "binary fill:0x41414141:70000"];
/// `PROCESS_TERMINATE`, and all rights.
const RIGHTS: [&str; 2] = ["access 1", ""];
/// The sizes of inputs that begin with the id of a process.
const SIZES: [u32; 4] = [4, 8, 16, 64];
/// So many requests take part.
const REQUESTS: usize = 6;

/// What a process' first thread, of the same name, does that the driver has asked for. Names are no process' own in a script.
fn deeds(watched: &[Watched], process: &str) -> Vec<String> {
    let mut steps = Vec::new();
    for one in watched {
        match one {
            // It happens as they begin and end.
            Watched::Processes => {}
            Watched::Images => {
                let long = format!(r"C:\{}.dll", "a".repeat(LONG));
                let paths = IMAGES.into_iter().chain([long.as_str()]);
                steps.extend(paths.map(|path| format!("load-image \"{path}\"")));
            }
            Watched::Registry => steps.extend(uses_of_registry(process)),
            Watched::Handles => {
                for access in RIGHTS {
                    let (one, other) = (format!("o{process}"), format!("d{process}"));
                    steps.push(format!("open-process a as {one} {access}"));
                    steps.push(format!("duplicate {one} as {other}; close {one}; close {other}"));
                }
            }
        }
    }
    steps.iter().flat_map(|step| step.split("; ")).map(|step| format!("{process}: {step}")).collect()
}

fn uses_of_registry(process: &str) -> Vec<String> {
    let key = format!("k{process}");
    let mut steps = vec![
        format!("open-key \"{KEY}missing\" as n{process}"),
        format!("create-key \"{KEY}{process}\" as {key}"),
    ];
    for data in VALUES {
        steps.push(format!("set-value {key} name {data}; query-value {key} name 64"));
    }
    let last =
        format!("query-value {key} missing 64; delete-value {key} name; delete-key {key}; close {key}");
    steps.push(last);
    steps
}

/// Adds that the driver is unloaded at once with what it has asked to get to know of: alone, and behind a request.
fn unloaded(survey: &Survey, plan: &mut Plan) {
    let name = survey.names.first();
    let asked = name.and_then(|name| {
        let operation = survey.operations.iter().find(|operation| operation.is_usual())?;
        let made =
            format!("{}; {}; close h; ", opened(survey, name, &[operation]), tried(1, &operation.command));
        Some((format!(" behind {}", words(operation)), made))
    });
    let alone = (String::new(), "tolerate; ".to_owned());
    for (behind, before) in std::iter::once(alone).chain(asked) {
        for one in &survey.watched {
            let script = match one {
                Watched::Processes => {
                    format!("{before}u: unload; process a; process b; exit a; exit b; join u")
                }
                _ => {
                    let deeds = deeds(&[*one], "b").join("; ");
                    format!(
                        "{before}process a; process b; {deeds}; u: unload; join b; join u; exit a; exit b"
                    )
                }
            };
            let title =
                format!("unloaded at once with processes whose {} the driver watches{behind}", one.words());
            plan.add(title, script, Kind::AtOnce);
        }
    }
}

/// Adds what the driver has asked to get to know of: alone, before and behind requests, and at once with another, or with requests.
pub(super) fn watched(survey: &Survey, plan: &mut Plan) {
    let watched = survey.watched.as_slice();
    if watched.is_empty() {
        return;
    }
    let [of_a, of_b] = ["a", "b"].map(|process| deeds(watched, process).join("; "));
    let steps = |steps: &[&str]| {
        let steps = steps.iter().filter(|step| !step.is_empty());
        steps.copied().collect::<Vec<_>>().join("; ")
    };
    let commands = format!("process c command utf16:\"c.exe /all\"; process d command {LONGEST_COMMAND}");
    let (begun, ended) = ("process a; process b", "join a; join b; exit a; exit b");
    let alone = steps(&[begun, &of_a, "join a", &of_b, &commands, "exit c; exit d", ended]);
    for one in watched {
        let steps = match one {
            Watched::Processes => steps(&["tolerate", begun, &commands, ended, "exit c; exit d"]),
            // The first process will do: where others begin, more happens.
            Watched::Registry => steps(&["tolerate", &uses_of_registry("x").join("; ")]),
            Watched::Images | Watched::Handles => {
                steps(&["tolerate", begun, &deeds(&[*one], "b").join("; "), ended])
            }
        };
        plan.add(format!("processes whose {} the driver watches", one.words()), steps, Kind::Requests);
    }
    plan.add(
        "processes that the driver watches, at once",
        steps(&["tolerate", begun, &of_a, &of_b, ended]),
        Kind::AtOnce,
    );
    if !survey.plug_and_play {
        unloaded(survey, plan);
    }
    let Some(name) = survey.names.first() else { return };
    let usual: Vec<&Operation> =
        survey.operations.iter().filter(|operation| operation.is_usual()).take(REQUESTS).collect();
    for operation in &usual {
        let opened = opened(survey, name, &[operation]);
        let [first, second, third] = [1, 2, 3].map(|n| tried(n, &operation.command));
        let script = steps(&[&opened, &first, &alone, &second, &third, "close h"]);
        plan.add(format!("{} before and behind processes", words(operation)), script, Kind::Requests);
        let asked = format!("t: async x {}", operation.command);
        let then = "join t; wait 50ms; cancel h; join x; close h";
        let script = steps(&[&opened, begun, &asked, &of_a, &of_b, ended, then]);
        plan.add(format!("{} at once with processes", words(operation)), script, Kind::AtOnce);
    }
    for operation in survey.operations.iter().filter(|one| one.code.is_some()).take(REQUESTS) {
        let code = operation.code.unwrap_or_default();
        let inputs = SIZES
            .map(|size| if size == 4 { "pid:a".to_owned() } else { format!("pid:a + zero:{}", size - 4) });
        let asked = inputs.iter().map(|input| format!("ioctl h {code:#x} in {input} out 64"));
        let asked = tried_in_turn(asked);
        let script = steps(&[&open(name), begun, &asked, &of_b, ended, "close h"]);
        plan.add(format!("{} of a process that is watched", words(operation)), script, Kind::Requests);
    }
}
