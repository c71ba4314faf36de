//! Subject contexts: whose rights count in a check of access.
//!
//! Pages: *SECURITY_SUBJECT_CONTEXT*, *SeCaptureSubjectContext function*, *SeLockSubjectContext function*, *SeUnlockSubjectContext
//! function*, *SeReleaseSubjectContext function*. A context has the process's token, and that of whom the thread acts for. It holds
//! references to them.

use abi::{DriverPtr, KPROCESS, KTHREAD, SECURITY_SUBJECT_CONTEXT, SecurityImpersonation};
use engine::Flow;

use super::impersonation;
use super::token::{self, Token, TokenPtr};
use crate::cx::Cx;
use crate::ke::{region, thread};
use crate::ps;
use crate::verdict::Verdict;

/// Where a subject context lies.
pub(crate) type Subject = DriverPtr<SECURITY_SUBJECT_CONTEXT>;
type S = SECURITY_SUBJECT_CONTEXT;

/// Who takes a reference by it.
pub(crate) const CAPTURE: &str = "SeCaptureSubjectContext";

/// Writes the context of a thread in the process with this key; no reference is taken. Its tokens.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn describe(cx: &mut Cx<'_>, thread: u64, process: u64, subject: Subject) -> Flow<Vec<u64>> {
    let (token, id) = cx.with(|k| (token::of_process(k, process), ps::process::id_of(k, process)));
    let acting = cx.with(|k| impersonation::of(k, thread));
    cx.write(subject + S::ClientToken, TokenPtr::new(acting.map_or(0, |acting| acting.token)))?;
    cx.write(subject + S::ImpersonationLevel, acting.map_or(0, |acting| acting.level))?;
    cx.write(subject + S::PrimaryToken, TokenPtr::new(token))?;
    cx.write(subject + S::ProcessAuditId, DriverPtr::new(id))?;
    Ok(std::iter::once(token).chain(acting.map(|acting| acting.token)).collect())
}

fn capture_of(cx: &mut Cx<'_>, thread: u64, process: u64, subject: Subject) -> Flow<()> {
    let tokens = describe(cx, thread, process, subject)?;
    tokens.into_iter().try_for_each(|token| token::take(cx, CAPTURE, token))
}

/// `SeCaptureSubjectContext`: of the running thread.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn capture(cx: &mut Cx<'_>, subject: Subject) -> Flow<()> {
    let (thread, process) = (thread::current_object(cx), ps::current_process(cx));
    capture_of(cx, thread.address, process, subject)
}

/// `SeCaptureSubjectContextEx`: of a thread in a process.
///
/// # Errors
/// As [`capture`]; a verdict if there is no such process.
pub(crate) fn capture_ex(
    cx: &mut Cx<'_>,
    thread: DriverPtr<KTHREAD>,
    process: DriverPtr<KPROCESS>,
    subject: Subject,
) -> Flow<()> {
    let key = ps::process::key(cx, "SeCaptureSubjectContextEx", process)?;
    capture_of(cx, thread.address, key, subject)
}

/// The token whose rights count: the client's, if there is one.
fn effective(cx: &mut Cx<'_>, subject: Subject) -> Flow<TokenPtr> {
    let client = cx.read(subject + S::ClientToken)?;
    if client.is_null() { cx.read(subject + S::PrimaryToken) } else { Ok(client) }
}

/// What that token says.
///
/// # Errors
/// A verdict if it is none.
pub(crate) fn token(cx: &mut Cx<'_>, ddi: &str, subject: Subject) -> Flow<Token> {
    let token = effective(cx, subject)?;
    token::get(cx, ddi, token)
}

/// Whether it may act for its client, if it has one.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn may_act(cx: &mut Cx<'_>, subject: Subject) -> Flow<bool> {
    let client = cx.read(subject + S::ClientToken)?;
    Ok(client.is_null() || cx.read(subject + S::ImpersonationLevel)? >= SecurityImpersonation)
}

/// `SeLockSubjectContext`: its tokens do not change until it is unlocked; the thread is in a critical region meanwhile.
///
/// # Errors
/// A verdict if it holds no token.
pub(crate) fn lock(cx: &mut Cx<'_>, subject: Subject) -> Flow<()> {
    let token = effective(cx, subject)?;
    token::get(cx, "SeLockSubjectContext", token)?;
    cx.with(|k| *k.se.locked.entry(token.address).or_default() += 1);
    region::enter_critical(cx)
}

/// `SeUnlockSubjectContext`.
///
/// # Errors
/// A verdict if it is not locked.
pub(crate) fn unlock(cx: &mut Cx<'_>, subject: Subject) -> Flow<()> {
    let token = effective(cx, subject)?;
    token::get(cx, "SeUnlockSubjectContext", token)?;
    let was = cx.with(|k| {
        let count = k.se.locked.get_mut(&token.address)?;
        *count = count.checked_sub(1)?;
        Some(())
    });
    if was.is_none() {
        let message = format!(
            "SeUnlockSubjectContext was called for the context at {:#x}, which is not locked",
            subject.address
        );
        return Err(cx.stop(Verdict::error("subject-context-not-locked", message)));
    }
    region::leave_critical(cx)
}

/// `SeReleaseSubjectContext`: the reference is given back.
///
/// # Errors
/// A verdict if it holds no token.
pub(crate) fn release(cx: &mut Cx<'_>, subject: Subject) -> Flow<()> {
    let primary = cx.read(subject + S::PrimaryToken)?;
    token::get(cx, "SeReleaseSubjectContext", primary)?;
    let client = cx.read(subject + S::ClientToken)?;
    if !client.is_null() {
        token::get(cx, "SeReleaseSubjectContext", client)?;
        token::give_back(cx, CAPTURE, client.address)?;
        cx.write(subject + S::ClientToken, DriverPtr::NULL)?;
    }
    token::give_back(cx, CAPTURE, primary.address)?;
    cx.write(subject + S::PrimaryToken, DriverPtr::NULL)
}
