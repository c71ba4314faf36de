//! `dirql new`: a folder with a driver that builds, runs on a test card and is tested, from templates (`crates/cli/templates`).
//!
//! In templates `NAME` is the driver's name, `VVVV` and `DDDD` are the card's ids. The files are text; scripts can be executed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use dirql::{Error, InputError};

use crate::arguments::{Language, New};
use crate::out::say;

/// A file of the new folder, and its text.
struct File {
    path: &'static str,
    text: &'static str,
}

/// The text of a template.
macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../templates/", $name))
    };
}

const BOTH: &[File] = &[
    File { path: "NAME.inf", text: template!("driver.inf") },
    File { path: "NAME.sheet", text: template!("card.sheet") },
    File { path: "test.sh", text: template!("test.sh") },
    File { path: "tests/interrupt.txt", text: template!("tests/interrupt.txt") },
    File { path: "tests/cancelled.txt", text: template!("tests/cancelled.txt") },
    File { path: "tests/unplugged.txt", text: template!("tests/unplugged.txt") },
    File { path: ".github/workflows/test.yml", text: template!("workflow.yml") },
    File { path: ".gitignore", text: template!("gitignore") },
];

const C: &[File] = &[
    File { path: "NAME.c", text: template!("c/driver.c") },
    File { path: "build.sh", text: template!("c/build.sh") },
    File { path: "build.cmd", text: template!("c/build.cmd") },
    File { path: "README.md", text: template!("c/README.md") },
];

const RUST: &[File] = &[
    File { path: "src/main.rs", text: template!("rust/main.rs") },
    File { path: "Cargo.toml", text: template!("rust/Cargo.toml.in") },
    File { path: ".cargo/config.toml", text: template!("rust/config.toml") },
    File { path: "rust-toolchain.toml", text: include_str!("../../../rust-toolchain.toml") },
    File { path: "build.rs", text: template!("rust/build.rs") },
    File { path: "build.sh", text: template!("rust/build.sh") },
    File { path: "README.md", text: template!("rust/README.md") },
];

/// Names that a driver cannot have: Rust's own words, and folders and programs that stand beside it.
const TAKEN: &[&str] = &[
    "abi", "alloc", "as", "async", "await", "box", "break", "build", "const", "continue", "core", "crate",
    "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "hal", "if", "impl", "in", "let",
    "loop", "match", "mod", "move", "mut", "ntoskrnl", "pub", "ref", "return", "self", "static", "std",
    "struct", "super", "target", "test", "tests", "trait", "true", "try", "type", "unsafe", "use", "wdm",
    "where", "while", "yield", "con", "prn", "aux", "nul",
];

/// Writes the folder.
///
/// # Errors
/// The name or the id cannot be one, the folder exists, or cannot be written.
pub(crate) fn run(arguments: &New) -> Result<()> {
    let New { name, device, lang } = arguments;
    check_name(name)?;
    let Some((vendor, id)) = ids(device) else {
        return unusable(format!(
            "`{device}` is not VVVV:DDDD, e.g. 10b5:9050: the card's vendor and device with four hexadecimal digits each, as `lspci -nn` shows them"
        ));
    };
    let folder = Path::new(name);
    if folder.symlink_metadata().is_ok() {
        return unusable(format!("{name} exists already; choose another name, or remove it"));
    }
    let own = match lang {
        Language::C => C,
        Language::Rust => RUST,
    };
    for File { path, text } in BOTH.iter().chain(own) {
        let filled = fill(text, name, &vendor, &id, *lang);
        if let Err(error) = write(&folder.join(path.replace("NAME", name)), &filled) {
            return unusable(format!("cannot write {name}: {error}; choose a folder that can be written"));
        }
    }
    say!("{name}: a driver in {} for the PCI card {vendor}:{id}", lang.name());
    say!("  cd {name} && ./test.sh    builds and tests it");
    say!("  {name}/README.md          says what is what");
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let is_one = name.len() <= 32
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_');
    if !is_one {
        return unusable(format!(
            "`{name}` cannot be a driver's name, which is its file's, its service's and its folder's: write a lower-case letter and up to 31 more, digits or `_`, e.g. mycard"
        ));
    }
    if TAKEN.contains(&name) {
        return unusable(format!(
            "`{name}` is a word that Rust, Windows or the folder itself has; take another name, e.g. {name}_card"
        ));
    }
    Ok(())
}

/// Vendor and device in lower case.
fn ids(text: &str) -> Option<(String, String)> {
    let (vendor, device) = text.split_once(':')?;
    let is_id = |id: &str| id.len() == 4 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    // No card has a vendor of all ones: that is an empty slot.
    let usable = is_id(vendor) && is_id(device) && !vendor.eq_ignore_ascii_case("ffff");
    usable.then(|| (vendor.to_lowercase(), device.to_lowercase()))
}

fn unusable<T>(message: String) -> Result<T> {
    Err(Error::Input(InputError::new(message)).into())
}

/// A template's text for this driver.
fn fill(text: &str, name: &str, vendor: &str, device: &str, language: Language) -> String {
    let packages = match language {
        Language::C => "gcc-mingw-w64-x86-64 build-essential",
        Language::Rust => "build-essential",
    };
    let crate_of_wdm = local_wdm();
    let (dependency, origin, step) = match (&crate_of_wdm, language) {
        (Some(path), Language::Rust) => (format!("path = {path:?}"), LOCAL, CRATE),
        _ => (GIT.to_owned(), PUBLISHED, ""),
    };
    text.replace("VEN_VVVV&DEV_DDDD", &format!("VEN_{}&DEV_{}", vendor.to_uppercase(), device.to_uppercase()))
        .replace("VVVV:DDDD", &format!("{vendor}:{device}"))
        .replace("PACKAGES", packages)
        .replace("WDM", &format!("wdm = {{ package = \"dirql-wdm\", {dependency} }}"))
        .replace("ORIGIN", origin)
        .replace("CRATE\n", step)
        .replace("NAME", name)
}

/// Where the crate `wdm` is published.
const GIT: &str = "git = \"https://github.com/dirql/dirql\"";
/// What the README says of it, and what its workflow does first.
const PUBLISHED: &str = "`Cargo.toml` takes the crate `wdm` from dirql's repository.";
const LOCAL: &str = "`Cargo.toml` takes the crate `wdm` from the folder that `dirql` was built in, so that it builds without a network. Elsewhere write
`git = \"https://github.com/dirql/dirql\"` for its `path = …`, as the workflow does.";
const CRATE: &str = "      - run: sed -i 's#path = \".*/drivers/wdm\"#git = \"https://github.com/dirql/dirql\"#' Cargo.toml\n";

/// The crate `wdm` of the repository that this command was built in, if it is still there.
fn local_wdm() -> Option<String> {
    let path =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../drivers/wdm")).canonicalize().ok()?;
    path.join("Cargo.toml").is_file().then(|| path.display().to_string())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)?;
    if text.starts_with("#!") {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
