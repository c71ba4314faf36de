//! `open-key`, `set-value` and the like: an application uses the registry.

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::cm::application;

use super::Stage;
use super::carry::Outcome;
use super::expect::judge;
use super::request::handle;
use crate::machine::Completion;
use crate::script::{Registry, RegistryAction};

/// Carries it out on the running thread, and holds what comes against what is expected.
pub(super) fn act(stage: &Stage, cx: &mut Cx<'_>, asked: &Registry) -> Flow<Outcome> {
    let end = match &asked.action {
        RegistryAction::Open(path) => open(stage, cx, asked, path, false)?,
        RegistryAction::Create(path) => open(stage, cx, asked, path, true)?,
        other => {
            let key = match handle(stage, cx, &asked.key) {
                Ok(key) => key,
                Err(why) => return Ok(Err(why)),
            };
            match other {
                RegistryAction::Set { value, kind, data } => {
                    let data = stage.sent(cx, data);
                    Completion::status(application::set_value(cx, key, value, *kind, &data)?)
                }
                RegistryAction::Query { value, length } => {
                    match application::query_value(cx, key, value, *length)? {
                        Ok(data) => {
                            let information = data.len() as u64;
                            Completion { status: NtStatus::SUCCESS.0, information, data }
                        }
                        Err(status) => Completion::status(status),
                    }
                }
                RegistryAction::DeleteValue(value) => {
                    Completion::status(application::delete_value(cx, key, value)?)
                }
                _ => Completion::status(application::delete_key(cx, key)?),
            }
        }
    };
    Ok(judge(&stage.play, &end, &asked.expect))
}

fn open(stage: &Stage, cx: &mut Cx<'_>, asked: &Registry, path: &str, make: bool) -> Flow<Completion> {
    Ok(match application::open(cx, path, make)? {
        Ok(key) => {
            stage.keep(cx, &asked.key, key);
            Completion::status(NtStatus::SUCCESS)
        }
        Err(status) => Completion::status(status),
    })
}
