//! `dirql devices`: the models, their ids, keys and signals.

use devices::{Entry, PLACEMENT, catalog};

use crate::out::say;

/// Lists them.
pub(crate) fn run(json: bool) {
    if json {
        say!("{}", serde_json::json!({ "devices": catalog().iter().map(object).collect::<Vec<_>>() }));
        return;
    }
    for entry in catalog() {
        show(entry);
    }
    say!("every model");
    PLACEMENT.iter().for_each(show_key);
}

fn ids(entry: &Entry) -> Vec<String> {
    entry.ids.iter().map(|(vendor, device)| format!("{vendor:04x}:{device:04x}")).collect()
}

fn show(entry: &Entry) {
    let ids = ids(entry).join(", ");
    let ids = if ids.is_empty() { String::new() } else { format!("  ({ids})") };
    say!("{}{ids}  {}", entry.name, entry.summary);
    entry.keys.iter().for_each(show_key);
    if !entry.signals.is_empty() {
        say!("  signals, for `poke {}#0 SIGNAL VALUE`", entry.name);
    }
    for signal in entry.signals {
        say!("    {:12} {}", signal.name, signal.meaning);
    }
    say!("");
}

fn show_key(key: &devices::Key) {
    say!("    {:12} {}; without it: {}", key.name, key.meaning, key.default);
}

fn object(entry: &Entry) -> serde_json::Value {
    let keys: Vec<_> = entry
        .all_keys()
        .map(|key| serde_json::json!({ "name": key.name, "meaning": key.meaning, "default": key.default }))
        .collect();
    let signals: Vec<_> = entry
        .signals
        .iter()
        .map(|signal| serde_json::json!({ "name": signal.name, "meaning": signal.meaning }))
        .collect();
    serde_json::json!({
        "name": entry.name, "summary": entry.summary, "ids": ids(entry), "keys": keys, "signals": signals,
    })
}
