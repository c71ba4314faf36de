//! Builds the drivers that tests, demo and examples run: the C ones of `drivers/c` with mingw or clang, the Rust ones
//! of the workspace `drivers` with rustc alone, into one folder of `.sys` files with their INFs beside them.
//!
//! The same source gives the same bytes: no time stamps, no paths. It signs nothing.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{call, identity, install};

/// A C driver. All paths are below `drivers/c`.
struct CDriver {
    /// Of the `.sys` file.
    name: &'static str,
    source: &'static str,
    defines: &'static [&'static str],
    /// A module definition whose exports are imported although ntoskrnl lacks them.
    missing: Option<&'static str>,
    compiler: Compiler,
}

/// What compiles a C driver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compiler {
    Gcc,
    /// For the msvc target, which has `__try`; with these flags besides.
    Clang(&'static [&'static str]),
}

use Compiler::{Clang, Gcc};

/// One that calls the frameworks' loader.
const fn by_loader(name: &'static str, source: &'static str, defines: &'static [&'static str]) -> CDriver {
    CDriver { name, source, defines, missing: Some("wdfldr/wdfldr.def"), compiler: Gcc }
}

const C_DRIVERS: &[CDriver] = &[
    CDriver { name: "accesses", source: "accesses.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "races", source: "races.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "counters", source: "counters.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "lengths", source: "lengths.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "legacy", source: "legacy.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "settings", source: "settings.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "requests",
        source: "requests.c",
        defines: &[],
        missing: Some("requests/newer.def"),
        compiler: Gcc,
    },
    CDriver { name: "correct", source: "correct.c", defines: &[], missing: None, compiler: Clang(&["-O2"]) },
    CDriver {
        name: "pairs",
        source: "pairs.c",
        defines: &[],
        missing: Some("pairs/newer.def"),
        compiler: Clang(&["-O1"]),
    },
    CDriver {
        name: "pairs_pnp",
        source: "pairs_pnp.c",
        defines: &[],
        missing: Some("pofx/pofx.def"),
        compiler: Clang(&["-O1"]),
    },
    CDriver {
        name: "files",
        source: "files.c",
        defines: &[],
        missing: Some("services/lacking.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "quota",
        source: "quota.c",
        defines: &[],
        missing: Some("services/lacking.def"),
        compiler: Clang(&["-O2"]),
    },
    CDriver {
        name: "folder",
        source: "folder.c",
        defines: &[],
        missing: Some("folder/newer.def"),
        compiler: Clang(&["-O2"]),
    },
    CDriver {
        name: "orders",
        source: "orders.c",
        defines: &[],
        missing: Some("locks/newer.def"),
        compiler: Gcc,
    },
    CDriver { name: "queue", source: "queue.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "queue_iotimer",
        source: "queue.c",
        defines: &["PACE_BY_IO_TIMER"],
        missing: None,
        compiler: Gcc,
    },
    CDriver { name: "pciline", source: "pciline.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "pciline_lost",
        source: "pciline.c",
        defines: &["COUNT_PLAINLY"],
        missing: None,
        compiler: Gcc,
    },
    CDriver {
        name: "pci9052_c",
        source: "pci9052.c",
        defines: &[],
        missing: Some("wmi/wmilib.def"),
        compiler: Gcc,
    },
    CDriver { name: "message", source: "message.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "edu", source: "edu.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "dma", source: "dma.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "late", source: "late.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "express", source: "express.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "installed",
        source: "installed.c",
        defines: &[],
        missing: Some("watcher.def"),
        compiler: Gcc,
    },
    CDriver { name: "localbus", source: "localbus.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "early", source: "early.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "ticks", source: "ticks.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "posted", source: "posted.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "combine", source: "combine.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "slave", source: "slave.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "card", source: "card.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "sampler", source: "sampler.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "idler", source: "idler.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "streams", source: "streams.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "sheet", source: "sheet.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "sheet_stale",
        source: "sheet.c",
        defines: &["KEEPS_REGISTERS"],
        missing: None,
        compiler: Gcc,
    },
    CDriver {
        name: "sheet_forgets",
        source: "sheet.c",
        defines: &["FORGETS_REGISTERS"],
        missing: None,
        compiler: Gcc,
    },
    CDriver {
        name: "sheet_deaf",
        source: "sheet.c",
        defines: &["KEEPS_VECTOR"],
        missing: None,
        compiler: Gcc,
    },
    CDriver { name: "wake", source: "wake.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "wake_forgets",
        source: "wake.c",
        defines: &["FORGETS_WAIT"],
        missing: None,
        compiler: Gcc,
    },
    CDriver { name: "pofx", source: "pofx.c", defines: &[], missing: Some("pofx/pofx.def"), compiler: Gcc },
    CDriver {
        name: "idle",
        source: "idle.c",
        defines: &["VERSION=1"],
        missing: Some("pofx/pofx.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "idle_depends",
        source: "idle.c",
        defines: &["VERSION=2"],
        missing: Some("pofx/pofx.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "idle_kept",
        source: "idle.c",
        defines: &["VERSION=2", "KEEPS_F0"],
        missing: Some("pofx/pofx.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "idle_directed",
        source: "idle.c",
        defines: &["VERSION=3"],
        missing: Some("pofx/pofx.def"),
        compiler: Gcc,
    },
    CDriver { name: "soft", source: "soft.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "busdriver", source: "busdriver.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "detect", source: "detect.c", defines: &[], missing: Some("detect.def"), compiler: Gcc },
    CDriver { name: "holder", source: "holder.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "correct_pnp", source: "correct_pnp.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "bench", source: "bench.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "services",
        source: "services.c",
        defines: &[],
        missing: Some("services/lacking.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "memory",
        source: "memory.c",
        defines: &[],
        missing: Some("memory/memory.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "sections",
        source: "sections.c",
        defines: &[],
        missing: Some("sections/sections.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "clocks",
        source: "clocks.c",
        defines: &[],
        missing: Some("clocks/clocks.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "locks",
        source: "locks.c",
        defines: &[],
        missing: Some("locks/newer.def"),
        compiler: Gcc,
    },
    CDriver { name: "system", source: "system.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "apcs", source: "apcs.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "faults",
        source: "faulty/faults.c",
        defines: &[],
        missing: Some("faulty/missing.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "stuck",
        source: "faulty/stuck.c",
        defines: &[],
        missing: Some("clocks/clocks.def"),
        compiler: Gcc,
    },
    CDriver { name: "seh", source: "seh.c", defines: &[], missing: None, compiler: Clang(&["-O2"]) },
    CDriver {
        name: "seh_unoptimized",
        source: "seh.c",
        defines: &[],
        missing: None,
        compiler: Clang(&["-O0"]),
    },
    CDriver {
        name: "hardened",
        source: "hardened.c",
        defines: &[],
        missing: Some("hardened/chkstk.def"),
        compiler: Clang(&["-O2", "-fstack-protector-strong", "-Xclang", "-cfguard", "-Wl,/guard:cf"]),
    },
    CDriver {
        name: "controllers",
        source: "controllers.c",
        defines: &[],
        missing: None,
        compiler: Clang(&["-O2"]),
    },
    CDriver { name: "fetch", source: "fetch.c", defines: &[], missing: None, compiler: Clang(&["-O1"]) },
    CDriver { name: "packets", source: "packets.c", defines: &[], missing: None, compiler: Clang(&["-O1"]) },
    CDriver { name: "layer", source: "layer.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "filter", source: "layer.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "layer_owner",
        source: "layer.c",
        defines: &["OWNS_POWER_POLICY"],
        missing: None,
        compiler: Gcc,
    },
    CDriver { name: "extended", source: "extended.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "hostile", source: "hostile/hostile.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "fuzz",
        source: "hostile/fuzz.c",
        defines: &[],
        missing: None,
        compiler: Clang(&["-O1"]),
    },
    CDriver { name: "costly", source: "hostile/costly.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "damage",
        source: "hostile/damage.c",
        defines: &[],
        missing: Some("services/lacking.def"),
        compiler: Gcc,
    },
    CDriver { name: "tables", source: "tables.c", defines: &[], missing: None, compiler: Clang(&["-O2"]) },
    CDriver {
        name: "objects",
        source: "objects.c",
        defines: &[],
        missing: Some("objects/newer.def"),
        compiler: Clang(&["-O2"]),
    },
    CDriver {
        name: "filters",
        source: "filters.c",
        defines: &[],
        missing: Some("filters/newer.def"),
        compiler: Clang(&["-O2", "-Wl,/integritycheck"]),
    },
    CDriver {
        name: "filters_unchecked",
        source: "filters.c",
        defines: &[],
        missing: Some("filters/newer.def"),
        compiler: Clang(&["-O2"]),
    },
    CDriver {
        name: "security",
        source: "security.c",
        defines: &[],
        missing: Some("security/newer.def"),
        compiler: Clang(&["-O2"]),
    },
    CDriver {
        name: "lost_update",
        source: "faulty/lost_update.c",
        defines: &[],
        missing: None,
        compiler: Gcc,
    },
    CDriver { name: "lost_local", source: "faulty/lost_local.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "meetings", source: "faulty/meetings.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "contend", source: "contend.c", defines: &[], missing: None, compiler: Gcc },
    CDriver { name: "leaves", source: "faulty/leaves.c", defines: &[], missing: None, compiler: Gcc },
    CDriver {
        name: "owners",
        source: "faulty/owners.c",
        defines: &[],
        missing: Some("locks/newer.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "executes",
        source: "faulty/executes.c",
        defines: &[],
        missing: Some("services/lacking.def"),
        compiler: Gcc,
    },
    CDriver { name: "wmi", source: "wmi.c", defines: &[], missing: Some("wmi/wmilib.def"), compiler: Gcc },
    CDriver {
        name: "wmi_overruns",
        source: "wmi.c",
        defines: &["OVERRUNS"],
        missing: Some("wmi/wmilib.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "wmi_stays",
        source: "wmi.c",
        defines: &["STAYS"],
        missing: Some("wmi/wmilib.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "wmi_by_hand",
        source: "wmi.c",
        defines: &["BY_HAND"],
        missing: Some("wmi/wmilib.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "wmi_raw",
        source: "wmi_raw.c",
        defines: &[],
        missing: Some("wmi/raw.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "tracing",
        source: "tracing.c",
        defines: &[],
        missing: Some("tracing/wpprecorder.def"),
        compiler: Gcc,
    },
    CDriver { name: "claims", source: "claims.c", defines: &[], missing: None, compiler: Clang(&["-O2"]) },
    CDriver {
        name: "watcher",
        source: "watcher.c",
        defines: &[],
        missing: Some("watcher.def"),
        compiler: Gcc,
    },
    CDriver {
        name: "watcher_early",
        source: "watcher.c",
        defines: &["EARLY"],
        missing: Some("watcher.def"),
        compiler: Gcc,
    },
    by_loader("loader", "loader.c", &[]),
    by_loader("framework", "framework.c", &[]),
    by_loader("framework_1_15", "framework.c", &["KMDF_MINOR=15"]),
    by_loader("framework_1_25", "framework.c", &["KMDF_MINOR=25"]),
    by_loader("kmdf_echo", "kmdf_echo.c", &["KMDF_MINOR=15"]),
    by_loader("kmdf_echo_1_7", "kmdf_echo.c", &["KMDF_MINOR=7"]),
    by_loader("kmdf_echo_1_9", "kmdf_echo.c", &["KMDF_MINOR=9"]),
    by_loader("kmdf_echo_1_33", "kmdf_echo.c", &["KMDF_MINOR=33"]),
    by_loader("kmdf_echo_min", "kmdf_echo.c", &["KMDF_MINOR=33", "KMDF_MINIMUM_MINOR=25"]),
    by_loader("kmdf_edu", "kmdf_edu.c", &["KMDF_MINOR=15"]),
    by_loader("kmdf_edu_1_7", "kmdf_edu.c", &["KMDF_MINOR=7"]),
    by_loader("kmdf_edu_1_13", "kmdf_edu.c", &["KMDF_MINOR=13"]),
    by_loader("kmdf_echo_owner", "kmdf_echo.c", &["KMDF_MINOR=7", "POLICY_OWNER=TRUE"]),
    by_loader("kmdf_echo_not_owner", "kmdf_echo.c", &["KMDF_MINOR=7", "POLICY_OWNER=FALSE"]),
    by_loader("kmdf_edu_not_owner", "kmdf_edu.c", &["KMDF_MINOR=7", "POLICY_OWNER=FALSE"]),
    by_loader("kmdf_miniport", "kmdf_miniport.c", &["KMDF_MINOR=15"]),
    by_loader("kmdf_miniport_1_7", "kmdf_miniport.c", &["KMDF_MINOR=7"]),
    by_loader("kmdf_miniport_forgets", "kmdf_miniport.c", &["KMDF_MINOR=7", "FORGETS"]),
    by_loader("kmdf_faulty", "kmdf_faulty.c", &["KMDF_MINOR=15"]),
    by_loader("kmdf_faulty_1_7", "kmdf_faulty.c", &["KMDF_MINOR=7"]),
    by_loader("kmdf_stories_1_7", "kmdf_stories.c", &["KMDF_MINOR=7"]),
    by_loader("kmdf_class", "kmdf_class.c", &["KMDF_MINOR=15"]),
    by_loader("kmdf_classed", "kmdf_classed.c", &["KMDF_MINOR=15"]),
    by_loader("kmdf_classed_newer", "kmdf_classed.c", &["KMDF_MINOR=15", "CLASS_WANTED=3"]),
    by_loader("kmdf_stories", "kmdf_stories.c", &["KMDF_MINOR=15"]),
    by_loader("kmdf_echo_races", "kmdf_echo.c", &["KMDF_MINOR=15", "RACES"]),
    by_loader("kmdf_echo_faulty", "kmdf_echo.c", &["KMDF_MINOR=15", "FAULTY"]),
    CDriver { name: "touches", source: "faulty/touches.c", defines: &[], missing: None, compiler: Gcc },
];

/// As Windows wants a driver: native subsystem, `DriverEntry` first, movable, no C library. `-fno-ident` and
/// `--no-insert-timestamp` keep the bytes the same; the COFF symbol table stays and `-g1` adds source lines, so that
/// verdicts can name both.
const GCC_FLAGS: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-g1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-multichar",
    "-ffreestanding",
    "-fno-ident",
    "-fno-stack-protector",
    // Loops over `PartialDescriptors[1]` go on behind the first, and may end before they set anything.
    "-fno-aggressive-loop-optimizations",
    "-Wno-maybe-uninitialized",
    "-nostdlib",
    "-nostartfiles",
    "-Wl,--subsystem,native",
    "-Wl,--entry,DriverEntry",
    "-Wl,--image-base,0x140000000",
    "-Wl,--dynamicbase",
    "-Wl,--nxcompat",
    "-Wl,--no-insert-timestamp",
];

/// The same for clang; mingw's headers and import libraries serve both. Faults in a `__try` itself are exceptions too.
const CLANG_FLAGS: &[&str] = &[
    "--target=x86_64-pc-windows-msvc",
    "-std=gnu11",
    // As `-gdwarf -gline-tables-only`, with which the linker would write a PDB, whose hash goes into the image.
    "-Xclang",
    "-debug-info-kind=line-tables-only",
    "-Xclang",
    "-dwarf-version=4",
    "-fasync-exceptions",
    "-funwind-tables",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-ident",
    "-nostdlib",
    "-fuse-ld=lld",
    "-Wl,/subsystem:native,/driver,/release,/entry:DriverEntry,/base:0x140000000,/dynamicbase,/Brepro,/debug:dwarf",
];

/// `target/drivers`: where tests look for the files.
pub(crate) fn default_out(root: &Path) -> PathBuf {
    root.join("target/drivers")
}

/// Installs what the builds need, and builds what is out of date into `out`.
///
/// # Errors
/// A tool is missing and cannot be installed, a driver does not compile, or a file cannot be written.
pub(crate) fn build(root: &Path, out: &Path) -> Result<()> {
    install::all(root)?;
    fs::create_dir_all(out).with_context(|| format!("cannot create the folder {}", out.display()))?;
    let out = &out.canonicalize()?;
    let _alone = build_alone(out)?;
    for inf in files_with(&root.join("drivers/c"), "inf")? {
        copy_if_changed(&inf, &out.join(inf.file_name().context("an INF has a name")?))?;
    }
    for driver in C_DRIVERS {
        build_c(root, out, driver).with_context(|| format!("the C driver {} does not build", driver.name))?;
    }
    build_rust(root, out).context("the Rust drivers do not build")
}

/// The same, of the Rust drivers.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_only_rust(root: &Path, out: &Path) -> Result<()> {
    install::all(root)?;
    fs::create_dir_all(out).with_context(|| format!("cannot create the folder {}", out.display()))?;
    build_rust(root, &out.canonicalize()?).context("the Rust drivers do not build")
}

/// Waits until no other process builds into `out`; none does before the file that is returned is closed. Tests that find their drivers
/// missing build them, several at once.
pub(crate) fn build_alone(out: &Path) -> Result<fs::File> {
    let scratch = out.join(".build");
    fs::create_dir_all(&scratch)?;
    let file = fs::File::create(scratch.join("lock")).context("the build's lock cannot be made")?;
    file.lock().context("the build's lock cannot be taken")?;
    Ok(file)
}

fn build_c(root: &Path, out: &Path, driver: &CDriver) -> Result<()> {
    let folder = root.join("drivers/c");
    build_image(&Image {
        root,
        folder: &folder,
        out,
        name: driver.name,
        source: &folder.join(driver.source),
        defines: driver.defines,
        missing: driver.missing,
        compiler: driver.compiler,
    })
}

/// A `.sys` file that is made of one source.
pub(crate) struct Image<'a> {
    /// The workspace's folder.
    pub(crate) root: &'a Path,
    /// What paths in the image begin behind.
    pub(crate) folder: &'a Path,
    pub(crate) out: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) source: &'a Path,
    pub(crate) defines: &'a [&'a str],
    /// As that of a [`CDriver`], below the folder.
    pub(crate) missing: Option<&'a str>,
    pub(crate) compiler: Compiler,
}

/// Compiles an image, if it is older than its sources or was made by another command.
///
/// # Errors
/// It does not compile, or a file cannot be read or written.
pub(crate) fn build_image(image: &Image<'_>) -> Result<()> {
    let Image { root, folder, out, name, source, defines, .. } = *image;
    let scratch = out.join(".build");
    fs::create_dir_all(&scratch)?;
    let finished = out.join(name).with_extension("sys");
    let fresh = format!("{name}.sys");
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();

    // In the scratch folder, because the linker sorts imports by the names of their libraries as it was given them.
    let mut compiler = compiler(image.compiler)?;
    compiler.current_dir(&scratch).args(defines.iter().map(|name| format!("-D{name}")));
    let mapped = [(folder, shown(folder)), (&scratch, ".".to_owned())];
    compiler.args(mapped.map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())));
    compiler.arg("-o").arg(&fresh).arg(source);
    if let Some(definition) = image.missing {
        compiler.arg(import_library(folder, &scratch, definition)?);
    }
    match image.compiler {
        Gcc => compiler.args(["-lntoskrnl", "-lhal", "-lwmilib"]),
        Clang(_) => compiler.args([mingw_file("libntoskrnl.a")?, mingw_file("libhal.a")?]),
    };

    // The command that made a file is kept beside it: other flags are a reason to build again, as a newer source is.
    let recipe = scratch.join(name).with_extension("recipe");
    let command = call::shown(&compiler);
    let inputs = sources(source.to_path_buf())?.into_iter();
    let inputs = inputs.chain(image.missing.map(|name| folder.join(name)));
    let up_to_date =
        newer(&finished, inputs) && fs::read_to_string(&recipe).is_ok_and(|last| last == command);
    if up_to_date {
        return Ok(());
    }
    call::step(&format!("{} → {}", shown(source), finished.display()), &mut compiler)?;
    fs::rename(scratch.join(fresh), &finished)?; // at once: a test that runs now sees the old file or the new, never half of one
    fs::write(&recipe, command)?;
    Ok(())
}

fn compiler(compiler: Compiler) -> Result<Command> {
    match compiler {
        Gcc => {
            let mut gcc = Command::new(install::MINGW_GCC);
            gcc.args(GCC_FLAGS);
            Ok(gcc)
        }
        Clang(flags) => {
            let mut clang = Command::new(install::CLANG);
            clang.args(CLANG_FLAGS).args(flags);
            let headers = mingw_file("../include")?;
            clang.arg("-isystem").arg(headers.join("ddk")).arg("-isystem").arg(headers);
            Ok(clang)
        }
    }
}

/// A file of mingw's, by its place beside the libraries.
fn mingw_file(name: &str) -> Result<PathBuf> {
    let file = call::output(Command::new(install::MINGW_GCC).arg("-print-file-name=libntoskrnl.a"))?;
    let libraries = Path::new(file.trim()).parent().context("mingw's libraries are in a folder")?;
    let path = libraries.join(name);
    path.canonicalize().with_context(|| format!("mingw has no {}", path.display()))
}

/// Makes an import library, in `scratch`, for what `definition` names; returns its file name.
fn import_library(folder: &Path, scratch: &Path, definition: &str) -> Result<PathBuf> {
    // By its folder too: several have one of the same name.
    let library = PathBuf::from(definition.replace('/', "_")).with_extension("a");
    let definition = folder.join(definition);
    if !newer(&scratch.join(&library), [definition.clone()]) {
        // Without these it names its members after a temporary file, and the bytes differ each time.
        let mut dlltool = Command::new("x86_64-w64-mingw32-dlltool");
        dlltool.current_dir(scratch).args(["--deterministic-libraries", "--temp-prefix", "missing"]);
        call::quietly(dlltool.arg("-d").arg(definition).arg("-l").arg(&library))?;
    }
    Ok(library)
}

/// A C file and all of our own that it includes.
fn sources(first: PathBuf) -> Result<Vec<PathBuf>> {
    let mut found = vec![first];
    let mut read = 0;
    while let Some(path) = found.get(read) {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let folder = path.parent().context("a source lies in a folder")?.to_path_buf();
        let names =
            text.lines().filter_map(|line| line.trim().strip_prefix("#include \"")?.split('"').next());
        let included: Vec<_> = names.map(|name| folder.join(name)).collect();
        for path in included {
            if !found.contains(&path) {
                found.push(path);
            }
        }
        read += 1;
    }
    Ok(found)
}

/// The files of a folder with this extension.
pub(crate) fn files_with(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

/// Whether `file` exists and none of `inputs` was changed after it.
pub(crate) fn newer(file: &Path, inputs: impl IntoIterator<Item = PathBuf>) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let Some(made) = changed(file) else { return false };
    inputs.into_iter().all(|input| changed(&input).is_some_and(|when| when <= made))
}

fn build_rust(root: &Path, out: &Path) -> Result<()> {
    let folder = root.join("drivers");
    if !folder.join("Cargo.toml").is_file() {
        eprintln!("xtask: drivers/Cargo.toml is not there: no Rust drivers built");
        return Ok(());
    }
    // From the folder itself, so that its own .cargo/config.toml counts. Cargo knows by itself what is out of date.
    let mut cargo = call::cargo(&folder);
    cargo.args(["build", "--quiet", "--release", "--target", install::RUST_TARGET, "--bins"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    cargo.arg("--target-dir").arg(root.join("target/drivers-build"));
    cargo.arg("--config").arg(remapping(root)).stdin(Stdio::null());
    for line in call::output(&mut cargo)?.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cargo's messages are not JSON")?;
        let (Some(built), Some(manifest)) =
            (message["executable"].as_str(), message["manifest_path"].as_str())
        else {
            continue;
        };
        let Some(name) = message["target"]["name"].as_str() else {
            bail!("cargo built {built} without a name")
        };
        copy_driver(Path::new(built), &out.join(name))
            .with_context(|| format!("cannot take over {built}"))?;
        let inf = Path::new(manifest).with_file_name(name).with_extension("inf");
        if inf.is_file() {
            copy_if_changed(&inf, &out.join(name).with_extension("inf"))?;
        }
    }
    Ok(())
}

/// The `--config` that takes this folder's and cargo's own paths out of the binaries.
fn remapping(root: &Path) -> OsString {
    let pairs = [(Some(root.to_path_buf()), "/dirql"), (call::cargo_home(), "/cargo")];
    let flags: Vec<String> = pairs
        .into_iter()
        .filter_map(|(from, to)| {
            Some(format!("{:?}", format!("--remap-path-prefix={}={to}", from?.display())))
        })
        .collect();
    format!("target.{}.rustflags=[{}]", install::RUST_TARGET, flags.join(",")).into()
}

/// Copies a linked image and its PDB, without what would tell one checkout from another.
///
/// # Errors
/// One of the two cannot be read or written, or is none.
pub(crate) fn copy_driver(built: &Path, to: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (mut image, mut pdb) = (read(built)?, read(&built.with_extension("pdb"))?);
    identity::settle(&mut image, &mut pdb)?;
    write_if_changed(&pdb, &to.with_extension("pdb"))?;
    write_if_changed(&image, &to.with_extension("sys"))
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write_if_changed(&bytes, to)
}

pub(crate) fn write_if_changed(bytes: &[u8], to: &Path) -> Result<()> {
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    eprintln!("xtask: {}", to.display());
    let beside = to.with_extension("new");
    fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, to).with_context(|| format!("cannot replace {}", to.display()))
}
