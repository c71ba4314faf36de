//! No static of a machine crate may hold heap memory: after a rewind it would point at what no longer is, and what it
//! allocated inside a machine would overwrite kernel objects of the next.
//!
//! A static that may be there for a reason says so: a comment `// tidy: …` directly above it, on its line, or directly
//! below. It does not find statics that a dependency has.

use crate::{expect_none, rust_files};

const MACHINE_CRATES: &[&str] = &["abi", "image", "engine", "kernel", "devices"];
/// What makes a static with contents on the heap. `static mut` is one too, being shared by all machines of a process.
const MAKERS: &[&str] = &["LazyLock", "OnceLock", "thread_local!", "lazy_static!", "static mut "];
const REASON: &str = "// tidy: ";

/// The numbers of the lines, from 1, that make such a static and give no reason.
fn unexplained(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let makes = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        !code.starts_with("use ") && MAKERS.iter().any(|maker| code.contains(maker))
    };
    let explained = |index: usize| {
        let above =
            lines[..index].iter().rev().take_while(|line| line.starts_with("//") || line.starts_with("#["));
        let below = lines.get(index + 1).is_some_and(|line| line.starts_with(REASON));
        below || lines[index].contains(REASON) || above.into_iter().any(|line| line.starts_with(REASON))
    };
    (0..lines.len())
        .filter(|index| makes(lines[*index]) && !explained(*index))
        .map(|index| index + 1)
        .collect()
}

#[test]
fn a_static_with_heap_is_noticed_unless_it_says_why() {
    assert_eq!(unexplained("fn f() {}\nstatic NAMES: LazyLock<Vec<u8>> = x;\n"), [2]);
    assert_eq!(unexplained("thread_local! {\n"), [1]);
    assert!(
        unexplained("// tidy: set once before any machine exists\n#[x]\nstatic A: OnceLock<u8> = x;")
            .is_empty()
    );
    assert!(unexplained("// a LazyLock would not do here\nstatic COUNT: AtomicU64 = x;").is_empty());
    assert_eq!(unexplained("// tidy: this one\nstatic A: u8 = 0;\nstatic B: OnceLock<u8> = x;"), [3]);
}

#[test]
fn machine_crates_have_no_statics_with_heap() {
    let ours =
        |path: &str| MACHINE_CRATES.iter().any(|name| path.starts_with(&format!("crates/{name}/src/")));
    let found = rust_files().into_iter().filter(|file| ours(&file.path)).flat_map(|file| {
        let say = |line| format!("{}:{line} a static with heap; if it must be, say `{REASON}why`", file.path);
        unexplained(&file.text).into_iter().map(say).collect::<Vec<_>>()
    });
    expect_none(&found.collect::<Vec<_>>());
}
