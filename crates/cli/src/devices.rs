//! `dirql devices`: the models, their ids, keys and signals.

use anyhow::Result;
use devices::{Entry, PLACEMENT, catalog, root};
use dirql::{Error, InputError};

use crate::out::say;
use crate::tips;

/// Lists them, or one.
///
/// # Errors
/// There is no model of that name.
pub(crate) fn run(model: Option<&str>, json: bool) -> Result<()> {
    if model == Some(root::NAME) {
        show_root(json);
        return Ok(());
    }
    let named = |entry: &&Entry| model.is_none_or(|model| entry.name == model);
    let wanted: Vec<&Entry> = catalog().iter().filter(named).collect();
    if let (Some(model), []) = (model, wanted.as_slice()) {
        let hint = tips::did_you_mean(model, catalog().iter().map(|entry| entry.name));
        return Err(Error::Input(InputError::new(format!("there is no device model `{model}`{hint}"))).into());
    }
    if json {
        say!("{}", serde_json::json!({ "devices": wanted.into_iter().map(object).collect::<Vec<_>>() }));
        return Ok(());
    }
    wanted.into_iter().for_each(show);
    say!("every model");
    PLACEMENT.iter().for_each(show_key);
    if model.is_none() {
        say!("");
        show_root(false);
    }
    Ok(())
}

/// A device that is no card.
fn show_root(json: bool) {
    if json {
        let keys: Vec<_> = root::KEYS
            .iter()
            .map(
                |key| serde_json::json!({ "name": key.name, "meaning": key.meaning, "default": key.default }),
            )
            .collect();
        let entry = serde_json::json!({ "name": root::NAME, "summary": root::SUMMARY, "ids": [], "keys": keys, "signals": [] });
        say!("{}", serde_json::json!({ "devices": [entry] }));
        return;
    }
    say!("{}  {}", root::NAME, root::SUMMARY);
    root::KEYS.iter().for_each(show_key);
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
