//! What is said of a process that ran a machine and died before its report was complete, and whose fault that is.
//!
//! One message, also where a second process was to find out why the first one died, and died too. It starts none of them.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// How such a process ended.
pub(crate) struct Death {
    /// With its last words.
    what: String,
    whose: &'static str,
    of_itself: bool,
    hung: bool,
}

impl Death {
    /// Of a process with these last words, which was ended because it `hung_for` so long, if it was.
    pub(crate) fn of(words: &[&str], status: ExitStatus, hung_for: Option<Duration>) -> Self {
        let (what, whose, of_itself) = match (hung_for, status.signal()) {
            (Some(limit), _) => (
                format!("no end after {} s of the host's time, so the run was ended", limit.as_secs()),
                "dirql's, if it hangs; no one's, if the run is only long (--host-timeout gives it more). A driver's endless \
                 loop or wait ends with a verdict; so do its writes over dirql's own memory, with --checked",
                true,
            ),
            (None, Some(signal @ (KILL | TERMINATE | INTERRUPT))) => (
                format!("the process that ran the machine was ended by {}", signal_name(signal)),
                "neither dirql's nor the driver's: that came from outside (a user, or the host being out of memory)",
                false,
            ),
            (None, Some(signal)) => {
                (format!("the process that ran the machine was ended by {}", signal_name(signal)), OURS, true)
            }
            (None, None) => {
                (format!("the process that ran the machine ended ({status}) without its report"), OURS, true)
            }
        };
        let words = if words.is_empty() { String::new() } else { format!(": {}", words.join("; ")) };
        Self { what: format!("{what}{words}"), whose, of_itself, hung: hung_for.is_some() }
    }

    /// It was not ended from outside, or it hung: it may be the driver's doing.
    pub(crate) fn is_of_itself(&self) -> bool {
        self.of_itself
    }

    /// How it ended, in words.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// What became of it, and whose fault that is. If it was to find out why a `first` one died, of both.
    pub(crate) fn crash_report(&self, first: Option<&Self>) -> String {
        let (what, whose) = match first {
            None => (self.what.clone(), self.whose),
            Some(first) => {
                let whose = if self.of_itself && !self.hung { OURS_TWICE } else { self.whose };
                (format!("{}\n  again, with every access checked: {}", first.what, self.what), whose)
            }
        };
        format!(
            "{what}\n  whose fault: {whose}\n  there is no verdict about the driver; what was printed before holds\n  \
             please report a fault of dirql, with this text and the command: https://github.com/dirql/dirql/issues"
        )
    }
}

/// What is said where a process died, and the same run came to its end in another one, `what` it died of being known.
pub(crate) fn unexplained(what: &str) -> String {
    format!(
        "{what}; the same run with every access checked came to its end, and the driver has broken no rule\n  \
         whose fault: dirql's\n  please report it, with this text and the command: \
         https://github.com/dirql/dirql/issues"
    )
}

const OURS: &str = "dirql's; or the driver has written over dirql's own memory, which was not noticed then";
const OURS_TWICE: &str =
    "dirql's: the second time, no access of the driver's to dirql's own memory went by unnoticed";
const INTERRUPT: i32 = 2;
const KILL: i32 = 9;
const TERMINATE: i32 = 15;

fn signal_name(signal: i32) -> String {
    let name = match signal {
        INTERRUPT => "SIGINT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        KILL => "SIGKILL",
        11 => "SIGSEGV",
        TERMINATE => "SIGTERM",
        31 => "SIGSYS (a system call that its jail refuses)",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}
