//! For tests of every prefix: a machine to stand in, and drivers in C. What a prefix's machine is made of stands in its own `rig`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::{Engine, Host};

use crate::{Cx, Nt};

/// Runs `test` on the scheduler's stack of the machine that `make` makes on its heap, with what else the test wants there; waits until no
/// other test has one. A panic in it goes on when the machine has ended.
pub(crate) fn run<K, R>(make: impl FnOnce(Engine) -> (Nt, K), test: impl FnOnce(&Nt, &K) -> R) -> R {
    let host = Host::start().unwrap();
    let (nt, kept) = host.inside(|| make(*host));
    let outcome = host.run(&nt, || catch_unwind(AssertUnwindSafe(|| test(&nt, &kept))));
    host.inside(|| drop((nt, kept)));
    // The payload lies on the machine's heap, which ends here: only a copy of its words goes on.
    let outcome = outcome.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
        std::mem::forget(payload);
        text
    });
    let inner = host.panic_message();
    host.finish();
    match (outcome, inner) {
        (Ok(result), None) => result,
        (Err(text), _) | (_, Some(text)) => panic!("{text}"),
    }
}

/// As [`run`], in a machine that is booted before and torn down behind `test`.
pub(crate) fn run_booted<K, R>(
    make: impl FnOnce(Engine) -> (Nt, K),
    test: impl FnOnce(&mut Cx<'_>, &K) -> R,
) -> R {
    run(make, |nt, kept| {
        nt.boot().unwrap();
        let result = test(&mut nt.cx(), kept);
        nt.teardown();
        engine::outside(|| result)
    })
}

/// The driver that `source` compiles to, with these flags. `imports` are (module, names) that no library of the compiler's has.
pub(crate) fn compile(source: &str, flags: &str, imports: &[(&str, &[&str])]) -> Vec<u8> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(format!("dirql-{}-{}", unique.0, unique.1));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("driver.c"), source).unwrap();
    let libraries: Vec<String> =
        imports.iter().map(|(module, names)| library(&folder, module, names)).collect();
    let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
    gcc.current_dir(&folder).args(flags.split_whitespace()).args(["-o", "driver.sys", "driver.c"]);
    succeed(gcc.args(libraries).args(["-lntoskrnl", "-lhal"]));
    let bytes = std::fs::read(folder.join("driver.sys")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    bytes
}

fn library(folder: &Path, module: &str, names: &[&str]) -> String {
    let text = format!("LIBRARY {module}\nEXPORTS\n{}\n", names.join("\n"));
    std::fs::write(folder.join("imports.def"), text).unwrap();
    let library = format!("lib{module}.a");
    let mut tool = Command::new("x86_64-w64-mingw32-dlltool");
    succeed(tool.current_dir(folder).args(["-d", "imports.def", "-l", &library]));
    library
}

/// Runs a compiler or one of its tools.
pub(crate) fn succeed(command: &mut Command) {
    let program = command.get_program().to_owned();
    let output = command.output().unwrap_or_else(|error| {
        panic!("{program:?}: {error}; install gcc-mingw-w64-x86-64, or run `cargo xtask test`, which does")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
