//! `docs/events.md`: what the lines of `dirql … --json` are, made from the declarations of events.

use std::fmt::Write;

use kernel::event::{Form, Kind, Role};

use super::json::{FUNCTION, SAID, SCHEMA};

/// What stands above the kinds.
const HEAD: &str = "\
<!-- Made by `cargo xtask events` from crates/kernel/src/event.rs. -->

# Events

`dirql run --json`, and `replay` and `explore` likewise, write one JSON object a line. This page is the schema, version VERSION; it is made
from the declarations of events in `crates/kernel/src/event.rs`. The version grows when a field or a line means something else or goes
away; new ones may come at any time, so a reader skips what it does not know.

| line | what it is |
| --- | --- |
| `begin` | the first line: `schema`, the version of this page; `dirql`, the program's |
| an event | one of the kinds below |
| `cut` | further events are left out: those before have `limit` bytes (`--output-limit`). What comes of the run follows |
| `finding-in-full` | behind the events: a finding that did not end the run, as `finding` |
| `moments` | whose doing the moments were that a verdict names: `what`, `number` of the event, `stack` |
| `end` | the last line: `outcome`, `exit_code`, `checked`, `verdict`, `failure`, `dismissed` (what [does not count](check.md#what-you-know-of-already), if there is any), `notes`, `summary`, `trace_hash`, `memory_hash` |
| `runs`, without `event` | what came of `dirql run --runs`, before the run that is shown: `runs`, `clean`, `broken`, `no_answer`, `first`, `last` and `shown` (policies), `findings` |
| `explored`, without `event` | what came of `dirql explore`, before the schedule that is shown: `schedules` by preemptions, `choices` of the one that was found, `findings`, whether it was `interrupted`, and what was `not_tried` (replay.md) |

`findings` are what only Driver Verifier stops for, and data races, of all runs or schedules: each once, as in `finding-in-full`, with `runs`, in how many it came,
and `replay`, the command that makes the first of these again.

`outcome` is `clean`, `broken` (a rule), `unexpected` (an expectation of the script), `not-implemented`, `our-fault`, or `unconfirmed`: as
clean, but of a run with `--fast`, in which accesses were not tested.

What is a pattern of bits (an address, a value of a register, a status, a code) is a string, `\"0x1f\"`, because such do not fit the numbers of
every JSON reader. What can be counted is a number. A field that has nothing to say is left out.

Each event has

| field | form | meaning |
| --- | --- | --- |
| `n` | number | its number. An `irql` event, and a detail, has that of what comes next: they are not counted |
| `t` | number | the machine's clock, nanoseconds |
| `cpu` | number | the processor |
| `irql` | number | its IRQL |
| `strand` | number | the thread that runs, as `thread` events name it; 0 is the scheduler |
| `event` | text | its kind |

A *detail* is only there where it is asked for: `--events all`, or `--events` with a list of the kinds that are wanted. The machine then takes its
long ways, and is slower; what happens is the same. `all` is all but `access`, which takes its time for each access that a driver makes: `--events all,access`.

A request of an application is known by the `n` of its `request`: `irp-sent` and `answer` have it as `request`. An IRP is known by the `n` of the
`irp-sent` with which it was first sent, `id`: addresses are used again.

A record (`--record`) keeps of each event its time, strand, kind and 32 bits of a hash of all fields.
";

/// The page.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.replace("VERSION", &SCHEMA.to_string());
    for kind in Kind::ALL {
        // A string takes what is written to it.
        let _ = write!(page, "\n## {}\n\n{}\n", kind.name(), kind.meaning().trim());
        if kind.is_detail() {
            page.push_str("\nA detail.\n");
        }
        let _ = write!(page, "\n| field | form | meaning |\n| --- | --- | --- |\n");
        for field in kind.fields() {
            let _ = writeln!(page, "| `{}` | {} | {} |", field.name, form(field.form), field.meaning.trim());
            if field.form == Form::Code {
                page.push_str("| `symbol` | text | Its name, where a PDB or the symbol table has one. |\n");
            }
        }
        for (_, name, meaning) in [FUNCTION, SAID].iter().filter(|(of, ..)| of == kind) {
            let _ = writeln!(page, "| `{name}` | text | {meaning} |");
        }
    }
    page.push_str(
        "\n## Roles\n\nWhat `role` of `enter` and `leave` can be.\n\n| role | the routine |\n| --- | --- |\n",
    );
    for role in Role::ALL {
        let _ = writeln!(page, "| `{role}` | {} |", role.meaning().trim());
    }
    page
}

/// A form in words.
const fn form(form: Form) -> &'static str {
    match form {
        Form::Number => "number",
        Form::Hex | Form::Code => "hex string",
        Form::Words => "list of hex strings",
        Form::Export => "text: the name of the export",
        Form::Tag => "text: four letters",
        Form::Flag => "true or false",
        Form::Text => "text",
    }
}
