//! The report as JSON lines, after the events: each finding, then `"event":"end"` with outcome, verdict and sums.

use kernel::event::Event;
use kernel::rules::{self, Rule};
use kernel::verdict::{Related, StackLine, Verdict};
use kernel::verifier::VerifierOption;
use kernel::wdf::log::FrameworkLog;

use super::{Dismissed, Report, bugcheck, line_json};
use crate::readers::{json_array, json_object, message_text};

/// In the order of their encodings.
const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// The outcome of a fast run in which nothing was wrong.
const UNCONFIRMED: &str = "unconfirmed";

impl Report {
    /// Behind the events of a run: each finding.
    #[must_use]
    pub fn json_findings(&self) -> Vec<String> {
        let finding = |verdict| {
            json_object().text("event", "finding-in-full").raw("finding", &self.finding_json(verdict)).end()
        };
        self.findings.iter().map(finding).collect()
    }

    /// The last line of a run's JSON.
    #[must_use]
    pub fn json_end(&self) -> String {
        let outcome = self.outcome();
        let end = json_object()
            .text("event", "end")
            .text("outcome", if self.is_unconfirmed() { UNCONFIRMED } else { outcome.name() })
            .flag("checked", self.checked)
            .number("exit_code", outcome.exit_code())
            .raw(
                "verdict",
                &self
                    .verdict
                    .as_ref()
                    .map_or_else(|| "null".to_owned(), |verdict| self.finding_json(verdict)),
            );
        let end = match &self.failure {
            Some(failure) => end.raw(
                "failure",
                &json_object()
                    .text("place", &failure.place)
                    .text("command", &failure.command)
                    .text("message", &failure.message)
                    .raw("moments", &moments(&failure.moments))
                    .end(),
            ),
            None => end.raw("failure", "null"),
        };
        let end = if self.framework_logs.is_empty() {
            end
        } else {
            end.raw("framework_logs", &json_array(self.framework_logs.iter().map(|log| self.log_json(log))))
        };
        let end = if self.dismissed.is_empty() {
            end
        } else {
            end.raw("dismissed", &json_array(self.dismissed.iter().map(|one| self.dismissed_json(one))))
        };
        let notes = self.notes.iter().map(|note| serde_json::Value::from(note.as_str()).to_string());
        end.optional("our_fault", self.our_fault.as_deref())
            .raw("notes", &json_array(notes))
            .raw("departures", &self.schedule_json())
            .raw("summary", &self.sums.json())
            .text("trace_hash", &format!("{:032x}", self.trace_hash))
            .text("memory_hash", &format!("{:032x}", self.memory_hash))
            .end()
    }

    fn dismissed_json(&self, Dismissed { verdict, by }: &Dismissed) -> String {
        let object = json_object().text("reason", &by.reason).text("by", &by.source);
        object.raw("finding", &self.finding_json(verdict)).end()
    }

    /// A framework's log as one object.
    fn log_json(&self, log: &FrameworkLog) -> String {
        let message = |(number, message): &(u32, Event)| {
            let text = message_text(&self.symbols, message).unwrap_or_default();
            json_object().number("number", *number).text("text", &text).end()
        };
        let messages = json_array(log.messages.iter().map(message));
        json_object().text("client", &log.client).raw("messages", &messages).end()
    }

    /// A verdict or finding as one object.
    pub(crate) fn finding_json(&self, verdict: &Verdict) -> String {
        let rule = rules::find(verdict.rule);
        let object = json_object()
            .text("rule", verdict.rule)
            .text("tier", verdict.tier.name())
            .text("message", &verdict.message)
            .flag("not_implemented", verdict.not_implemented)
            .optional("remedy", rule.as_ref().map(|rule| rule.remedy))
            .optional("page", rule.as_ref().and_then(|rule| rule.page))
            .optional("verifier", rule.as_ref().and_then(Rule::option).map(VerifierOption::name));
        let object = match &verdict.bug_check {
            Some(check) => {
                let parameters = check.parameters.iter().map(|value| format!("\"{value:#x}\""));
                let meanings = bugcheck::parameters(check);
                let meanings = meanings.iter().map(|text| serde_json::Value::from(text.as_str()).to_string());
                let check = json_object()
                    .address("code", check.code.into())
                    .optional("name", bugcheck::name(check.code))
                    .raw("parameters", &json_array(parameters))
                    .raw("meanings", &json_array(meanings));
                object.raw("bug_check", &check.end())
            }
            None => object.raw("bug_check", "null"),
        };
        let object = match &verdict.caller {
            Some(caller) => {
                let registers = caller.registers.general.iter().zip(NAMES);
                let all = registers.fold(json_object(), |object, (value, name)| object.address(name, *value));
                object.raw("registers", &all.address("flags", caller.registers.flags).end())
            }
            None => object.raw("registers", "null"),
        };
        let line = |line: &StackLine| line_json(&self.symbols, line);
        object
            .raw("stack", &json_array(verdict.stack.iter().map(line)))
            .raw("moments", &moments(&verdict.related))
            .end()
    }
}

fn moments(all: &[Related]) -> String {
    let one =
        |related: &Related| json_object().text("what", related.what).number("number", related.event).end();
    json_array(all.iter().map(one))
}
