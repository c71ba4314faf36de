//! Every file of a crate's `tests` takes part in a test program, and in one only. Where a crate's manifest says `autotests = false`, cargo builds
//! the roots that the manifest names, and a file that no root names is never compiled: its tests seem to pass.
//!
//! It does not follow modules of modules: a folder of `tests` is one module, whatever is in it.

use std::path::Path;

use crate::{expect_none, metadata, root, tracked};

/// A test program's root: its path from the crate's `tests`, and its text.
type Root = (String, String);

/// The name by which a root has a file of `tests` as a module: `searches.rs`, `rig/mod.rs`, `twins/main.rs`.
fn module(file: &str) -> Option<&str> {
    let module = file.strip_suffix("/mod.rs").or_else(|| file.strip_suffix("/main.rs"));
    module.or_else(|| file.strip_suffix(".rs")).filter(|name| !name.contains('/'))
}

/// What is wrong with the files of one crate's `tests`.
fn strays(files: &[String], roots: &[Root]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| roots.iter().all(|(path, _)| path != *file)) {
        let Some(module) = module(file) else { continue };
        let names = |text: &str| text.lines().any(|line| line == format!("mod {module};"));
        match roots.iter().filter(|(_, text)| names(text)).count() {
            0 => complaints
                .push(format!("{file} is in no test program: have `mod {module};` in one of its roots")),
            2.. if !file.contains('/') => {
                complaints.push(format!("{file} is in several test programs: its tests would run in each"));
            }
            _ => {}
        }
    }
    complaints
}

#[test]
fn a_file_of_tests_that_no_root_names_is_noticed() {
    let files =
        ["all.rs", "more.rs", "kept.rs", "lost.rs", "twice.rs", "rig/mod.rs", "rig/held.rs", "twins/main.rs"];
    let files = files.map(str::to_owned);
    let roots = [
        ("all.rs".to_owned(), "mod kept;\nmod rig;\nmod twice;\n// mod lost;\n".to_owned()),
        ("more.rs".to_owned(), "mod rig;\nmod twice;\n#[path = \"twins/main.rs\"]\nmod twins;\n".to_owned()),
    ];
    let expected = ["lost.rs is in no test program", "twice.rs is in several test programs"];
    let complaints = strays(&files, &roots);
    assert_eq!(complaints.len(), expected.len(), "{complaints:?}");
    assert!(complaints.iter().zip(expected).all(|(found, text)| found.starts_with(text)), "{complaints:?}");
    assert_eq!(
        strays(&files, &roots[..1]).len(),
        3,
        "without a root that names it, the folder is noticed, too"
    );
}

#[test]
fn every_file_of_tests_is_in_one_test_program() {
    let metadata = metadata("Cargo.toml");
    let tracked = tracked();
    let (mut complaints, mut seen) = (Vec::new(), 0);
    for package in metadata["packages"].as_array().expect("there are packages") {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a package has a manifest"));
        let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root()).ok());
        let folder = format!("{}/tests/", folder.expect("it lies in the workspace").display());
        let of_tests = |path: &str| path.strip_prefix(&folder).map(str::to_owned);
        let targets = package["targets"].as_array().expect("a package has targets");
        let roots = targets.iter().filter(|target| target["kind"][0] == "test").map(|target| {
            let path = Path::new(target["src_path"].as_str().expect("a target has a root"));
            let text = std::fs::read_to_string(path).expect("a root can be read");
            let path = path.strip_prefix(root()).expect("it lies in the workspace").display().to_string();
            (of_tests(&path).expect("it lies in tests"), text)
        });
        let files: Vec<String> = tracked
            .iter()
            .filter(|file| Path::new(&file.path).extension().is_some_and(|extension| extension == "rs"))
            .filter_map(|file| of_tests(&file.path))
            .collect();
        seen += files.len();
        let wrong = strays(&files, &roots.collect::<Vec<_>>());
        complaints.extend(wrong.into_iter().map(|complaint| format!("{folder}{complaint}")));
    }
    assert!(seen > 100, "there are files of tests: {seen}");
    expect_none(&complaints);
}
