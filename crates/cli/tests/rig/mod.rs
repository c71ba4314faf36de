//! For tests of the command: the built binary, compiled drivers, a folder of one's own.

#[path = "../../../dirql/tests/rig/lost_update.rs"]
pub(crate) mod lost_update;
#[path = "../../../dirql/tests/rig/small_machines.rs"]
pub(crate) mod small_machines;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a command answered.
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("it writes text"),
            err: String::from_utf8(output.stderr).expect("it writes text"),
        }
    }

    /// Everything it said, for the message of a failed assertion.
    pub(crate) fn said(&self) -> String {
        format!("exit code {:?}\n--- out\n{}\n--- err\n{}", self.code, self.out, self.err)
    }
}

/// Runs the built command.
pub(crate) fn dirql<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_dirql")).args(arguments).output();
    Answer::of(output.expect("the command was built with this test"))
}

/// What comes of a line that a shell is to take.
pub(crate) fn again(line: &str) -> Answer {
    let line = line.replacen("dirql", env!("CARGO_BIN_EXE_dirql"), 1);
    Answer::of(Command::new("sh").arg("-c").arg(line).current_dir(root()).output().expect("there is a shell"))
}

/// What `dirql check` has found, its line makes again, in a process of its own.
pub(crate) fn is_made_again(finding: &serde_json::Value) {
    let (rule, replay) = (finding["rule"].as_str().unwrap(), finding["replay"].as_str().unwrap());
    let answer = again(replay);
    assert!(answer.out.contains(rule), "{rule}: {replay}\n{}", answer.said());
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A driver that `cargo xtask drivers` has built, or a file beside it.
pub(crate) fn driver(name: &str) -> PathBuf {
    let path = root().join("target/drivers").join(name);
    assert!(path.is_file(), "{} is not there: run `cargo xtask drivers` first", path.display());
    path
}

/// A folder of the caller's own, empty: tests run beside each other, and none may write what another reads.
pub(crate) fn folder(name: &str) -> PathBuf {
    let made = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    made.expect("the target folder can be written").keep()
}
