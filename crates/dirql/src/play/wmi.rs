//! `wmi`: what an administrator's program asks.

use engine::Flow;
use kernel::Cx;
use kernel::wmi::consumer::{self, Question, Which};
use kernel::wmi::parse_guid;

use super::Stage;
use super::carry::Outcome;
use super::expect::judge;
use crate::machine::transfer::Completion;
use crate::script::{Wmi, WmiInstance, WmiQuestion};

/// Asks a block on the running thread, and holds what comes against what is expected.
pub(super) fn ask(stage: &Stage, cx: &mut Cx<'_>, wmi: &Wmi) -> Flow<Outcome> {
    let guid = parse_guid(&wmi.guid).expect("the parser has looked at it");
    let which = match &wmi.instance {
        WmiInstance::All => Which::All,
        WmiInstance::Place(place) => Which::Place(*place),
        WmiInstance::Name(name) => Which::Name(name.clone()),
    };
    let mut sent = |data| stage.sent(cx, data).into_owned();
    let question = match &wmi.question {
        WmiQuestion::Query => Question::Query,
        WmiQuestion::Set { item: None, data } => Question::Set(sent(data)),
        WmiQuestion::Set { item: Some(item), data } => Question::SetItem(*item, sent(data)),
        WmiQuestion::Execute { method, input, output } => {
            Question::Execute(*method, input.as_ref().map(sent).unwrap_or_default(), *output)
        }
        WmiQuestion::Enable => Question::Listen,
        WmiQuestion::Disable => Question::Leave,
        WmiQuestion::Event => Question::Event,
    };
    let answer = consumer::ask(cx, guid, &which, &question)?;
    let information = answer.data.len() as u64;
    let end = Completion { status: answer.status.0, information, data: answer.data };
    Ok(judge(&stage.play, &end, &wmi.expect))
}
