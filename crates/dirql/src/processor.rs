//! The processors that driver code can find in a machine, as users name them. What the host is makes no difference, as long
//! as it has what the chosen one has.

use engine::Cpu;

use crate::error::InputError;
use crate::script::suggest::nearest;

/// What can be typed after `--cpu`.
pub const PROCESSORS: [(&str, Cpu); 2] = [("x86-64-v2", Cpu::X86_64V2), ("x86-64-v3", Cpu::X86_64V3)];

/// What is typed for a processor.
#[must_use]
pub fn name(cpu: Cpu) -> &'static str {
    PROCESSORS.iter().find(|(_, known)| *known == cpu).map_or("", |(name, _)| name)
}

/// The processor of this name.
///
/// # Errors
/// There is none; the message lists those there are.
pub fn parse(name: &str) -> Result<Cpu, InputError> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, cpu)) = PROCESSORS.iter().find(|(known, _)| *known == lower) {
        return Ok(*cpu);
    }
    let names: Vec<&str> = PROCESSORS.iter().map(|(known, _)| *known).collect();
    let hint = nearest(&lower, names.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
    let (hint, list) = (hint.unwrap_or_default(), names.join(", "));
    Err(InputError::new(format!("no processor `{name}`{hint}; there are: {list}")))
}

/// Whether the host can run driver code for this processor.
pub(crate) fn check(cpu: Cpu) -> Result<(), InputError> {
    let missing = cpu.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let (name, missing) = (name(cpu), missing.join(", "));
    Err(InputError::new(format!(
        "this host cannot run driver code for {name}: its processor lacks {missing}; choose another --cpu, or another host"
    )))
}
