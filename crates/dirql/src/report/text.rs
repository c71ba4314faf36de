//! The report as people read it.

use std::fmt::{self, Write};

use engine::Caller;
use kernel::rules;
use kernel::verdict::{Related, Tier, Verdict};
use kernel::wdf::log::FrameworkLog;

use super::bugcheck::Shown;
use super::{Dismissed, Failure, Outcome, Place, Report, place, stack_text};
use crate::readers::{SymbolBook, message_text};

/// Where users report a fault of ours.
const ISSUES: &str = "https://github.com/dirql/dirql/issues";

/// One finding with all that is known of it.
#[must_use]
pub fn verdict_text(verdict: &Verdict, symbols: &SymbolBook) -> String {
    let mut text = String::new();
    let _ = write_verdict(&mut text, verdict, symbols);
    text
}

fn write_verdict(f: &mut impl Write, verdict: &Verdict, symbols: &SymbolBook) -> fmt::Result {
    writeln!(f, "  rule         {}{}", verdict.rule, tier(verdict.tier))?;
    writeln!(f, "  what         {}", verdict.message)?;
    if let Some(check) = &verdict.bug_check {
        write!(f, "{}", Shown(check))?;
    }
    if let Some(rule) = rules::find(verdict.rule).filter(|_| !verdict.not_implemented) {
        if let Some(page) = rule.page {
            writeln!(f, "  page         {page}")?;
        }
        writeln!(f, "  mend         {}", rule.remedy)?;
    }
    let moment = |related: &Related| format!("{} at event {}", related.what, related.event);
    if !verdict.related.is_empty() {
        let moments: Vec<String> = verdict.related.iter().map(moment).collect();
        writeln!(f, "  moments      {}", moments.join(", "))?;
    }
    let Some(first) = verdict.stack.first() else { return Ok(()) };
    let Place { symbol, source, inlined } = place(symbols, first);
    let source = source.map(|source| format!("  ({source})")).unwrap_or_default();
    writeln!(f, "  instruction  {:#x}  {symbol}{source}", first.address)?;
    if let Some((routine, Some(source))) = inlined.first() {
        writeln!(f, "               in {routine}, inlined there  ({source})")?;
    }
    if let Some((client, ddi)) = verdict.stack.iter().find_map(|line| Some((line, line.ddi?))) {
        let Place { symbol, source, .. } = place(symbols, client);
        let source = source.map(|source| format!("  ({source})")).unwrap_or_default();
        writeln!(f, "  client       {:#x}  {symbol}, in its call of {ddi}{source}", client.address)?;
    }
    if let Some(caller) = &verdict.caller {
        write_registers(f, caller)?;
    }
    writeln!(f, "  stack")?;
    f.write_str(&stack_text(symbols, &verdict.stack))
}

/// Four to a line, in the order in which debuggers show them.
fn write_registers(f: &mut impl Write, caller: &Caller) -> fmt::Result {
    const ORDER: [(&str, usize); 16] = [
        ("rax", 0),
        ("rbx", 3),
        ("rcx", 1),
        ("rdx", 2),
        ("rsi", 6),
        ("rdi", 7),
        ("rsp", 4),
        ("rbp", 5),
        ("r8", 8),
        ("r9", 9),
        ("r10", 10),
        ("r11", 11),
        ("r12", 12),
        ("r13", 13),
        ("r14", 14),
        ("r15", 15),
    ];
    writeln!(f, "  registers    rip={:016x} rflags={:08x}", caller.rip, caller.registers.flags)?;
    for row in ORDER.chunks(4) {
        write!(f, "   ")?;
        for (name, index) in row {
            write!(f, " {name:>3}={:016x}", caller.registers.general[*index])?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Error => "",
        Tier::Verifier => " (only Driver Verifier would stop here)",
        Tier::Warning => " (warning)",
        Tier::Advice => " (advice)",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.place, self.command, self.message)
    }
}

impl Report {
    /// The verdict alone: what `--quiet` leaves.
    #[must_use]
    pub fn verdict_text(&self) -> String {
        let mut text = String::new();
        let _ = self.write_outcome(&mut text);
        text
    }

    /// The newest messages of a framework's log.
    fn write_log(&self, f: &mut impl Write, log: &FrameworkLog) -> fmt::Result {
        const SHOWN: usize = 16;
        let earlier = log.messages.len().saturating_sub(SHOWN);
        let left_out =
            if earlier > 0 { format!(" ({earlier} more before, with --json)") } else { String::new() };
        writeln!(f, "  the framework's log of {}{left_out}", log.client)?;
        for (number, message) in &log.messages[earlier..] {
            writeln!(f, "    {number:>4}  {}", message_text(&self.symbols, message).unwrap_or_default())?;
        }
        Ok(())
    }

    /// What a clean verdict does not cover.
    fn but_for_warnings(&self) -> String {
        match self.findings.iter().filter(|finding| finding.tier == Tier::Warning).count() {
            0 => String::new(),
            1 => ", but for 1 warning".to_owned(),
            warnings => format!(", but for {warnings} warnings"),
        }
    }

    fn write_outcome(&self, f: &mut impl Write) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "finding")?;
            write_verdict(f, finding, &self.symbols)?;
        }
        for Dismissed { verdict, by } in &self.dismissed {
            writeln!(f, "dismissed\n  reason       {}  ({})", by.reason, by.source)?;
            write_verdict(f, verdict, &self.symbols)?;
        }
        if let Some(failure) = &self.failure {
            writeln!(f, "expectation failed\n  {failure}")?;
        }
        match self.outcome() {
            Outcome::OurFault => {
                writeln!(f, "verdict: none; dirql itself failed, the driver is not to blame")?;
                writeln!(f, "  {}", self.our_fault.as_deref().unwrap_or_default())?;
                writeln!(
                    f,
                    "  please report it, with this text, the command and the driver if you can: {ISSUES}"
                )?;
            }
            Outcome::NotImplemented => writeln!(
                f,
                "verdict: none; the run could not be completed, because dirql lacks something (the driver is not to blame)"
            )?,
            Outcome::Broken => writeln!(f, "verdict: the driver broke a rule")?,
            Outcome::Unexpected => writeln!(f, "verdict: no rule broken, but not what the script expects")?,
            Outcome::Clean => {
                let fast = if self.checked {
                    ""
                } else {
                    " (fast: not checked, so a use of freed memory or of paged memory at raised IRQL may have gone by)"
                };
                writeln!(f, "verdict: clean{}{fast}", self.but_for_warnings())?;
            }
        }
        let verifiers = self.findings.iter().filter(|finding| finding.tier == Tier::Verifier).count();
        if verifiers > 0 {
            let findings = if verifiers == 1 { "1 finding is" } else { &format!("{verifiers} findings are") };
            writeln!(
                f,
                "  {findings} what only Driver Verifier stops for: with --verifier the run ends there"
            )?;
        }
        if let Some(verdict) = &self.verdict {
            write_verdict(f, verdict, &self.symbols)?;
            self.framework_logs.iter().try_for_each(|log| self.write_log(f, log))?;
        }
        if self.outcome() == Outcome::Clean { Ok(()) } else { f.write_str(&self.schedule_text()) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        write!(f, "summary\n{}", self.sums)?;
        self.write_outcome(f)
    }
}
