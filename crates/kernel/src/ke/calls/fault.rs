//! What Windows would report for a fault in a driver: bug check, parameters, and a sentence. Follows *Bug Check Code
//! Reference* and the pages of 0x0A, 0x1E, 0x3B, 0x50, 0x7E, 0x7F, 0xBE, 0xD1, 0xFC.
//!
//! Handlers have been asked already (`exception`): what they could catch is judged as unhandled.

use abi::DriverPtr;
use engine::windows::{IMAGES, SYSTEM, USER_DEVICE};
use engine::{Fault, FaultKind};

use super::stack;
use crate::cx::{Cx, Kernel};
use crate::ke::levels::irql::DISPATCH_LEVEL;
use crate::ke::sched::thread_record::Role;
use crate::ldr;
use crate::mm::{accessed, pool_check, special_pool, user};
use crate::verdict::{BugCheck, Memory, Verdict};

const ACCESS_VIOLATION: u32 = 0xC000_0005;
const ILLEGAL_INSTRUCTION: u32 = 0xC000_001D;
const DIVIDE_BY_ZERO: u32 = 0xC000_0094;
const FLOATING_POINT: u32 = 0xC000_0090;
const SINGLE_STEP: u32 = 0x8000_0004;

/// An exception without a handler.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Exception {
    /// NTSTATUS.
    pub(crate) code: u32,
    /// The instruction.
    pub(crate) rip: u64,
    /// `ExceptionInformation`: for an access 0 read, 1 write, 8 execute, and the address.
    pub(crate) information: [u64; 2],
}

/// How an exception is reported depends on where it was raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    /// At DISPATCH_LEVEL or above, in a DPC, or in a routine on an expanded stack.
    Raised,
    /// On a system thread.
    SystemThread,
    /// In a system call: an application's, or a driver's.
    SystemCall,
}

fn place(k: &Kernel) -> Where {
    let processor = k.ke.processor();
    if k.level() >= DISPATCH_LEVEL || processor.running_dpc.is_some() {
        return Where::Raised;
    }
    if k.ke.thread().is_some_and(|thread| !thread.services.is_empty()) {
        return Where::SystemCall;
    }
    if k.ke.thread().is_some_and(|thread| !thread.left_stacks.is_empty()) {
        return Where::Raised;
    }
    match k.ke.thread().map(|thread| thread.role) {
        Some(Role::Application) => Where::SystemCall,
        Some(Role::System | Role::Worker) => Where::SystemThread,
        Some(Role::Idle) | None => Where::Raised,
    }
}

/// The bug check of an exception without a handler.
pub(crate) fn unhandled(cx: &mut Cx<'_>, exception: &Exception) -> BugCheck {
    unhandled_at(cx.with(|k| place(k)), exception)
}

fn unhandled_at(place: Where, exception: &Exception) -> BugCheck {
    let Exception { code, rip, information } = *exception;
    let extended = i64::from(code.cast_signed()).cast_unsigned();
    match place {
        Where::Raised => BugCheck { code: 0x1E, parameters: [extended, rip, information[0], information[1]] },
        Where::SystemThread => BugCheck { code: 0x7E, parameters: [extended, rip, 0, 0] },
        Where::SystemCall => BugCheck { code: 0x3B, parameters: [code.into(), rip, 0, 0] },
    }
}

/// The bug check of an access to user memory without a handler; `how` as in `ExceptionInformation`.
pub(crate) fn access_violation(cx: &mut Cx<'_>, rip: u64, how: u64, address: u64) -> BugCheck {
    unhandled(cx, &Exception { code: ACCESS_VIOLATION, rip, information: [how, address] })
}

/// The bug check of a call to address 0.
pub(in crate::ke) fn null_call(cx: &mut Cx<'_>) -> BugCheck {
    let (place, irql) = cx.with(|k| (place(k), k.level()));
    bad_access(place, irql, Access::Execute, 0, 0)
}

/// How memory was referenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Read = 0,
    Write = 1,
    Execute = 8,
}

/// A reference to memory that is not there.
fn bad_access(place: Where, irql: u8, access: Access, address: u64, rip: u64) -> BugCheck {
    if irql >= DISPATCH_LEVEL {
        return BugCheck { code: 0xD1, parameters: [address, irql.into(), access as u64, rip] };
    }
    // Of the user half, an exception; of the kernel's, the end, whatever handlers there are.
    if address < USER_DEVICE.end() {
        let information = [access as u64, address];
        return unhandled_at(place, &Exception { code: ACCESS_VIOLATION, rip, information });
    }
    // Since Windows 10 a write is 2 and an execution 10h in the second parameter.
    let how = match access {
        Access::Read => 0,
        Access::Write => 2,
        Access::Execute => 0x10,
    };
    BugCheck { code: 0x50, parameters: [address, how, rip, 2] }
}

/// What is known about the place of a fault besides the fault itself.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Circumstances {
    place: Where,
    irql: u8,
    /// Whose stack has its guard page at the address.
    overflowed: Option<String>,
    /// What fills that stack.
    chain: String,
    /// The stack pointer, if no stack is there: the processor cannot even tell of the fault.
    no_stack: Option<u64>,
    /// The page there is mapped: it was the kind of access that is not allowed.
    mapped: bool,
    /// The instruction, with its symbol.
    instruction: String,
    /// The address, if it has a name of its own.
    target: String,
}

/// The verdict on a fault of the driver's.
pub(crate) fn verdict(cx: &mut Cx<'_>, fault: &Fault) -> Verdict {
    let rip = fault.caller.rip;
    if let Some(name) = ldr::imports::name_at(cx, fault.address) {
        // An imported variable that dirql lacks: as with a call, the driver is not to blame.
        let by = ldr::symbols::describe(cx, rip);
        return Verdict::not_implemented(&format!("{name}, which {by} refers to"));
    }
    let overflowed = cx.with(|k| {
        k.ke.processor_mut().cr2 = fault.address;
        stack::overflowed(k, fault.address)
    });
    let chain =
        overflowed.as_ref().map_or_else(String::new, |(stack, _)| stack::describe_overflow(cx, *stack));
    let circumstances = Circumstances {
        place: cx.with(|k| place(k)),
        irql: crate::ke::levels::irql::current(cx),
        overflowed: overflowed.map(|(_, owner)| owner),
        chain,
        no_stack: Some(fault.caller.registers.rsp())
            .filter(|rsp| cx.engine().read::<u8>(DriverPtr::new(rsp.wrapping_sub(1))).is_err()),
        mapped: cx.with(|k| k.mm.map.page(fault.address).is_some() && !user::rests(k, fault.address)),
        instruction: ldr::symbols::describe(cx, rip),
        target: ldr::symbols::describe(cx, fault.address),
    };
    if fault.kind == FaultKind::Write
        && let Some(mut verdict) = user::read_only_written(cx, fault.address, &circumstances.instruction)
    {
        verdict.caller = Some(fault.caller);
        return verdict;
    }
    if circumstances.overflowed.is_none()
        && matches!(fault.kind, FaultKind::Read | FaultKind::Write)
        && let Some(mut verdict) = {
            let write = fault.kind == FaultKind::Write;
            special_pool::accused(cx, fault.address, write, special_pool::By::Driver(rip))
        }
    {
        verdict.caller = Some(fault.caller);
        return verdict;
    }
    let mut verdict = judge(fault, &circumstances);
    verdict.caller = Some(fault.caller);
    if verdict.rule == "execute-of-data"
        && let Some(owner) = cx.with(|k| stack::owner_of(k, fault.address))
    {
        verdict.message += &format!(": in the stack of {owner}");
        return verdict;
    }
    if ["wild-read", "wild-write"].contains(&verdict.rule) {
        let accessed = accessed::of_nothing(cx, fault.address, rip);
        if accessed.memory == Memory::SystemBuffer {
            verdict.message += "; Irp->AssociatedIrp.SystemBuffer of the request is NULL";
        }
        verdict.accessed = Some(accessed);
    }
    if cx.with(|k| user::rests(k, fault.address)) {
        verdict.message += ": the buffer of a request that is complete, which its application has taken back";
        return verdict;
    }
    let around = match verdict.rule {
        "stack-overflow" => None,
        _ => pool_check::explain(cx, fault.address),
    };
    let Some((what, block)) = around else { return verdict };
    verdict.message += &format!(": {what}");
    verdict.of_block(&block)
}

fn judge(fault: &Fault, c: &Circumstances) -> Verdict {
    let (rip, address, at) = (fault.caller.rip, fault.address, &c.instruction);
    if let Some(owner) = &c.overflowed {
        let message = format!("{at} ran over the end of {owner}: the stack overflowed ({})", c.chain);
        return Verdict::error("stack-overflow", message).bug_check(0x7F, [8, 0, 0, rip]);
    }
    let exception = |code: u32| unhandled_at(c.place, &Exception { code, rip, information: [0, u64::MAX] });
    let (rule, message, check) = match fault.kind {
        FaultKind::Read => {
            ("wild-read", referenced(c, "read", address), access(c, Access::Read, address, rip))
        }
        FaultKind::Write if c.mapped => (
            "write-to-read-only",
            format!("{at} wrote to {}, which is read-only", c.target),
            BugCheck { code: 0xBE, parameters: [address, 0, 0, 0xA] },
        ),
        FaultKind::Write => {
            ("wild-write", referenced(c, "wrote to", address), access(c, Access::Write, address, rip))
        }
        FaultKind::Execute if c.mapped => (
            "execute-of-data",
            format!("{at} jumped to {}, where memory is not executable", numbered(&c.target, address)),
            BugCheck { code: 0xFC, parameters: [address, 0, 0, 0] },
        ),
        FaultKind::Execute => {
            ("wild-call", referenced(c, "jumped to", address), access(c, Access::Execute, address, rip))
        }
        FaultKind::NonCanonical => (
            "wild-pointer",
            format!("{at} used {address:#x} as a pointer, which is no possible address"),
            unhandled_at(c.place, &Exception { code: ACCESS_VIOLATION, rip, information: [0, u64::MAX] }),
        ),
        FaultKind::Divide => {
            let message = format!("{at} divided by zero, or the quotient does not fit");
            ("divide-error", message, exception(DIVIDE_BY_ZERO))
        }
        FaultKind::InvalidOpcode => {
            let message = format!("{at} is {}, which the processor refuses", instruction_name(fault.what));
            ("invalid-opcode", message, exception(ILLEGAL_INSTRUCTION))
        }
        FaultKind::FloatingPoint => (
            "floating-point-exception",
            format!("{at} raised a floating-point exception"),
            exception(FLOATING_POINT),
        ),
        FaultKind::Protection => {
            // Reported as an access violation, whatever the address.
            let what = instruction_name(fault.what);
            let message = format!("{at} ({what}) is refused: misaligned, or not for the kernel's use");
            ("protection-fault", message, exception(ACCESS_VIOLATION))
        }
        FaultKind::Trap => {
            ("trap", format!("{at} was trapped by a single step or breakpoint"), exception(SINGLE_STEP))
        }
        FaultKind::StackMoved => {
            let message = format!(
                "{at} returned to the kernel and took {address} bytes more off the stack than the return address: on x64 \
                 the caller frees arguments"
            );
            return Verdict::error("stack-pointer-changed-on-return", message);
        }
        FaultKind::NotImplemented => {
            return Verdict::not_implemented(&format!(
                "the instruction {} at {at}",
                instruction_name(fault.what)
            ));
        }
    };
    match c.no_stack {
        Some(rsp) => {
            Verdict::error(rule, format!("{message}; the stack pointer is {rsp:#x}, where no stack is"))
                .bug_check(0x7F, [8, 0, 0, rip])
        }
        None => Verdict::error(rule, message).bug_check(check.code, check.parameters),
    }
}

/// A name with its address, if it is more than that.
fn numbered(name: &str, address: u64) -> String {
    let number = format!("{address:#x}");
    if name == number { number } else { format!("{name} ({number})") }
}

fn access(c: &Circumstances, access: Access, address: u64, rip: u64) -> BugCheck {
    bad_access(c.place, c.irql, access, address, rip)
}

const fn instruction_name(what: &str) -> &str {
    if what.is_empty() { "an instruction" } else { what }
}

/// `driver.sys!F+0x12 read 0x8, where nothing is (a null pointer), at IRQL 2`.
fn referenced(c: &Circumstances, verb: &str, address: u64) -> String {
    let kind = match address {
        0..0x1_0000 => " (a null pointer)",
        _ if address < IMAGES.base => " (a user-mode address)",
        _ if SYSTEM.contains(address) => " (freed, or never allocated)",
        _ => "",
    };
    format!("{} {verb} {}, where nothing is{kind}, at IRQL {}", c.instruction, c.target, c.irql)
}

#[cfg(test)]
mod tests {
    use engine::{Caller, Registers};

    use super::*;

    fn judged(
        kind: FaultKind,
        address: u64,
        change: impl FnOnce(&mut Circumstances),
    ) -> (&'static str, u32, [u64; 4]) {
        let caller = Caller { rip: 0x2000_0000_1234, registers: Registers::default() };
        let fault = Fault { kind, address, caller, what: "" };
        let mut circumstances = Circumstances {
            place: Where::SystemThread,
            irql: 0,
            overflowed: None,
            chain: String::new(),
            no_stack: None,
            mapped: false,
            instruction: "t.sys+0x1234".to_owned(),
            target: format!("{address:#x}"),
        };
        change(&mut circumstances);
        let verdict = judge(&fault, &circumstances);
        let check = verdict.bug_check.unwrap();
        (verdict.rule, check.code, check.parameters)
    }

    const WILD: u64 = SYSTEM.base + 0x1234_5678;
    const RIP: u64 = 0x2000_0000_1234;

    #[test]
    fn a_wild_kernel_pointer_is_0x50_below_dispatch_level_and_0xd1_from_there_on() {
        assert_eq!(judged(FaultKind::Read, WILD, |_| {}), ("wild-read", 0x50, [WILD, 0, RIP, 2]));
        assert_eq!(judged(FaultKind::Write, WILD, |_| {}), ("wild-write", 0x50, [WILD, 2, RIP, 2]));
        assert_eq!(judged(FaultKind::Write, WILD, |c| c.irql = 2), ("wild-write", 0xD1, [WILD, 2, 1, RIP]));
        assert_eq!(judged(FaultKind::Execute, WILD, |c| c.irql = 5), ("wild-call", 0xD1, [WILD, 5, 8, RIP]));
    }

    #[test]
    fn a_null_pointer_below_dispatch_level_is_an_exception_told_by_the_kind_of_thread() {
        let violation = 0xFFFF_FFFF_C000_0005;
        assert_eq!(judged(FaultKind::Read, 8, |_| {}), ("wild-read", 0x7E, [violation, RIP, 0, 0]));
        let call = |c: &mut Circumstances| c.place = Where::SystemCall;
        assert_eq!(judged(FaultKind::Read, 8, call), ("wild-read", 0x3B, [0xC000_0005, RIP, 0, 0]));
        let dpc = |c: &mut Circumstances| (c.place, c.irql) = (Where::Raised, 2);
        assert_eq!(judged(FaultKind::Read, 8, dpc), ("wild-read", 0xD1, [8, 2, 0, RIP]));
    }

    #[test]
    fn a_stack_overflow_is_a_double_fault_whatever_the_access_was() {
        let over = |c: &mut Circumstances| c.overflowed = Some("the worker".to_owned());
        assert_eq!(judged(FaultKind::Write, WILD, over), ("stack-overflow", 0x7F, [8, 0, 0, RIP]));
    }

    #[test]
    fn a_fault_without_a_stack_is_a_double_fault() {
        let pivoted = |c: &mut Circumstances| c.no_stack = Some(WILD);
        assert_eq!(judged(FaultKind::Write, WILD, pivoted), ("wild-write", 0x7F, [8, 0, 0, RIP]));
    }

    #[test]
    fn memory_that_is_there_but_not_for_this_says_so() {
        let mapped = |c: &mut Circumstances| c.mapped = true;
        assert_eq!(judged(FaultKind::Write, WILD, mapped).1, 0xBE);
        assert_eq!(judged(FaultKind::Execute, WILD, mapped).1, 0xFC);
    }

    #[test]
    fn a_division_by_zero_in_a_dpc_is_0x1e_with_its_status() {
        let dpc = |c: &mut Circumstances| c.place = Where::Raised;
        let (rule, code, parameters) = judged(FaultKind::Divide, 0, dpc);
        assert_eq!((rule, code, parameters[0]), ("divide-error", 0x1E, 0xFFFF_FFFF_C000_0094));
    }
}
