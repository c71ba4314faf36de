//! Paths of keys: from the roots of a registry file to `\Registry`, and which of them the system keeps to itself.
//!
//! Pages: *Registry Key Object Routines*, *Predefined Keys*.

use kernel::rtl::text::upcase;

use crate::script::suggest::nearest;

/// Roots, their short names, and where the kernel has them.
const ROOTS: [(&str, &str, &str); 5] = [
    ("HKEY_LOCAL_MACHINE", "HKLM", r"\Registry\Machine"),
    ("HKEY_USERS", "HKU", r"\Registry\User"),
    ("HKEY_CURRENT_USER", "HKCU", r"\Registry\User\.Default"),
    ("HKEY_CLASSES_ROOT", "HKCR", r"\Registry\Machine\Software\Classes"),
    ("HKEY_CURRENT_CONFIG", "HKCC", r"\Registry\Machine\System\ControlSet001\Hardware Profiles\Current"),
];
/// Roots that hold all others, and where.
pub(super) const WHOLE: [(&str, &str); 2] = [(ROOTS[0].0, ROOTS[0].2), (ROOTS[1].0, ROOTS[1].2)];

/// The most characters of a key's name.
const LONGEST: usize = 255;
/// How deep a key can lie below a root. Source: *Registry Element Size Limits*.
pub(super) const DEEPEST: usize = 512;
/// The link, and what it leads to.
const CONTROL_SET: [&str; 2] = ["CurrentControlSet", "ControlSet001"];

/// Where in a control set keys are that the system has for itself: how many levels below are so, too.
const SYSTEM: [(&[&str], usize); 5] = [
    (&["Enum"], 3),
    (&["Services"], 0),
    (&["Control"], 0),
    (&["Control", "Class"], 2),
    (&["Control", "DeviceClasses"], 2),
];

/// The path from `\Registry` on of what stands between brackets.
///
/// # Errors
/// How far into the text what is wrong begins, in bytes, and what it is.
pub(super) fn resolve(typed: &str) -> Result<String, (usize, String)> {
    let (root, below) = typed.split_once('\\').map_or((typed, None), |(root, below)| (root, Some(below)));
    let is_root = |&&(long, short, _): &&(&str, &str, &str)| {
        root.eq_ignore_ascii_case(long) || root.eq_ignore_ascii_case(short)
    };
    let Some((_, _, path)) = ROOTS.iter().find(is_root) else { return Err((0, unknown(root))) };
    let mut path = (*path).to_owned();
    let mut at = root.len() + 1;
    let names = || below.into_iter().flat_map(|below| below.split('\\'));
    for (level, name) in (2..).zip(names()) {
        if level > DEEPEST {
            let what =
                format!("this key lies more than {DEEPEST} levels deep, which no key does; shorten its path");
            return Err((at, what));
        }
        if name.is_empty() {
            let what = "a key's name is missing behind this backslash; between brackets each backslash stands once, and none at the end";
            return Err((at - 1, what.to_owned()));
        }
        let length = name.encode_utf16().count();
        if length > LONGEST {
            return Err((at, format!("this key's name has {length} characters; one has at most {LONGEST}")));
        }
        path = format!(r"{path}\{name}");
        at += name.len() + 1;
    }
    Ok(without_link(&path))
}

fn unknown(root: &str) -> String {
    let shown: String = root.chars().take(40).collect();
    match nearest(root, ROOTS.iter().flat_map(|(long, short, _)| [*long, *short])) {
        Some(near) => format!("`{shown}` is no root of the registry; did you mean {near}?"),
        None => {
            let all: Vec<&str> = ROOTS.iter().map(|(long, _, _)| *long).collect();
            format!("`{shown}` is no root of the registry; a key begins with one of {}", all.join(", "))
        }
    }
}

/// The names in a path, without `Registry`.
fn names(path: &str) -> Vec<&str> {
    path.split('\\').skip(2).collect()
}

fn is(name: &str, other: &str) -> bool {
    name.encode_utf16().map(upcase).eq(other.encode_utf16().map(upcase))
}

fn begins_with(names: &[&str], with: &[&str]) -> bool {
    names.len() >= with.len() && names.iter().zip(with).all(|(name, with)| is(name, with))
}

/// A path from `\Registry` on that goes by the control set itself.
fn without_link(path: &str) -> String {
    let mut all = names(path);
    if begins_with(&all, &["Machine", "System", CONTROL_SET[0]]) {
        all[2] = CONTROL_SET[1];
    }
    format!(r"\Registry\{}", all.join(r"\"))
}

/// Of a path without links, what lies below the control set.
fn in_control_set<'n, 'p>(names: &'n [&'p str]) -> Option<&'n [&'p str]> {
    begins_with(names, &["Machine", "System", CONTROL_SET[1]]).then(|| &names[3..])
}

/// Whether the system cannot be without a key: roots, hives, the control set, keys of devices and of drivers' setup.
pub(super) fn is_systems(path: &str) -> bool {
    let all = names(path);
    let Some(below) = in_control_set(&all) else { return all.len() <= 2 };
    let mut kept = SYSTEM.iter();
    below.is_empty()
        || kept.any(|(with, levels)| begins_with(below, with) && below.len() <= with.len() + levels)
}

/// Whether the system makes a key anew whenever it boots, so that nothing is written there: the list of a service's devices, what a device runs with.
pub(crate) fn is_kept(path: &str) -> bool {
    let all = names(path);
    match in_control_set(&all) {
        Some([services, _, list, ..]) if is(services, "Services") => is(list, "Enum"),
        Some([devices, _, _, _, control, ..]) if is(devices, "Enum") => is(control, "Control"),
        _ => false,
    }
}

/// Whether a path without links is that of the key at another path, or of one below it.
pub(crate) fn is_within(path: &str, key: &str) -> bool {
    begins_with(&names(path), &names(&without_link(key)))
}
