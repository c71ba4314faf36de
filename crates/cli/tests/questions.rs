//! `dirql imports` and `dirql devices`, as people and as programs ask.

use super::rig::{dirql, driver};

#[test]
fn imports_tell_what_is_missing_and_that_it_still_runs() {
    let answer = dirql([&"imports".into(), &driver("faults.sys")]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let line =
        |name: &str| answer.out.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("ZwDirqlDoesNotExist").contains("missing"), "{}", answer.said());
    assert!(line("KeSetEvent").contains("implemented") && line("KeSetEvent").contains("IRQL 0..2"));
    assert!(answer.out.contains("still runs"), "{}", answer.said());
}

#[test]
fn imports_as_json_have_the_documented_fields() {
    let driver = driver("faults.sys");
    let answer = dirql(["imports", driver.to_str().unwrap(), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&answer.out).expect("it is JSON");
    let imports = json["imports"].as_array().expect("a list");
    assert!(imports.len() > 15);
    for import in imports {
        let fields: Vec<&str> = import.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields.len(), 5, "{import}");
        for field in ["module", "name", "kind", "irql", "status"] {
            assert!(fields.contains(&field), "{import} lacks {field}");
        }
    }
    let one = imports.iter().find(|import| import["name"] == "KeSetEvent").unwrap();
    assert_eq!(
        *one,
        serde_json::json!({
            "module": "ntoskrnl.exe", "name": "KeSetEvent", "kind": "function", "irql": "0..2", "status": "implemented",
        })
    );
}

#[test]
fn devices_list_ids_keys_and_signals() {
    let answer = dirql(["devices"]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    for part in ["pci9052", "10b5:9050", "latency", "linti1", "slot", "barN"] {
        assert!(answer.out.contains(part), "{part}\n{}", answer.said());
    }
    let json: serde_json::Value =
        serde_json::from_str(&dirql(["devices", "--json"]).out).expect("it is JSON");
    assert_eq!(json["devices"][0]["name"], "pci9052");
    assert!(json["devices"][0]["keys"].as_array().unwrap().iter().any(|key| key["name"] == "latency"));
}

#[test]
fn one_device_is_told_of_alone() {
    let answer = dirql(["devices", "edu"]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(
        answer.out.starts_with("edu  (1234:11e8)") && answer.out.contains("\nevery model\n"),
        "{}",
        answer.said()
    );
    assert!(!answer.out.contains("pci9052"), "{}", answer.said());
    let json: serde_json::Value = serde_json::from_str(&dirql(["devices", "edu", "--json"]).out).unwrap();
    assert_eq!(json["devices"].as_array().unwrap().len(), 1);
}

#[test]
fn help_names_the_exit_codes() {
    let answer = dirql(["run", "--help"]);
    assert_eq!(answer.code, Some(0));
    for part in ["0  clean", "1  the driver", "2  unusable", "3  no answer"] {
        assert!(answer.out.contains(part), "{part}\n{}", answer.said());
    }
}

#[test]
fn rules_are_listed_told_in_full_and_found_by_a_misspelt_name() {
    let answer = dirql(["rules"]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(answer.out.lines().count() > 200 && answer.out.contains("\nirql-too-high "), "{}", answer.said());
    let answer = dirql(["rules", "double-completion"]);
    for part in ["MULTIPLE_IRP_COMPLETE_REQUESTS (0x44)", "  page  ", "  mend  ", "  tier         error"] {
        assert!(answer.out.contains(part), "{part}\n{}", answer.said());
    }
    let answer = dirql(["rules", "double-complettion"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.said().contains("did you mean `double-completion`?"), "{}", answer.said());
    let json: serde_json::Value =
        serde_json::from_str(&dirql(["rules", "irql-too-high", "--json"]).out).expect("it is JSON");
    assert_eq!(json["rules"][0]["option"], "ddi", "{json}");
}
