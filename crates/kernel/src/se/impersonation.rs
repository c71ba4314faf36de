//! Threads that act for a client: with its token in place of their process's.
//!
//! Pages: *PsImpersonateClient function*, *PsReferenceImpersonationToken function*, *PsRevertToSelf function*, *SeCreateClientSecurity
//! function*, *SeImpersonateClientEx function*, *Bug Check 0xDF IMPERSONATING_WORKER_THREAD*. A server needs no privilege for it.

use std::collections::BTreeMap;

use abi::{
    DriverPtr, KTHREAD, NtStatus, SECURITY_CLIENT_CONTEXT, SECURITY_QUALITY_OF_SERVICE,
    SECURITY_SUBJECT_CONTEXT, SecurityDelegation, SecurityImpersonation, TOKEN_CONTROL,
};
use engine::Flow;

use super::subject::Subject;
use super::token::{self, TokenPtr, luid};
use crate::cx::{Cx, Kernel};
use crate::ke::thread;
use crate::ob;
use crate::ps::system_thread;
use crate::verdict::Verdict;

type Client = SECURITY_CLIENT_CONTEXT;
type Quality = SECURITY_QUALITY_OF_SERVICE;

/// Whom a thread acts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Impersonation {
    pub(crate) token: u64,
    /// `SecurityIdentification` and others.
    pub(crate) level: u32,
    copy_on_open: bool,
    effective_only: bool,
}

/// Those that act for someone, by their objects.
#[derive(Default)]
pub(crate) struct Impersonations {
    threads: BTreeMap<u64, Impersonation>,
}

/// Whom the thread with this object acts for.
pub(crate) fn of(k: &Kernel, thread: u64) -> Option<Impersonation> {
    k.se.impersonations.threads.get(&thread).copied()
}

/// Whom the running thread acts for.
pub(crate) fn current(cx: &mut Cx<'_>) -> Option<Impersonation> {
    let thread = thread::current_object(cx);
    cx.with(|k| of(k, thread.address))
}

/// The thread acts for this one from here on, or for none. It lets go of the token that it had.
fn change(cx: &mut Cx<'_>, thread: u64, new: Option<Impersonation>) -> Flow<()> {
    if let Some(new) = new {
        ob::object::reference(cx, TokenPtr::new(new.token))?;
    }
    let before = cx.with(|k| {
        let threads = &mut k.se.impersonations.threads;
        match new {
            Some(new) => threads.insert(thread, new),
            None => threads.remove(&thread),
        }
    });
    match before {
        Some(before) => ob::object::dereference(cx, TokenPtr::new(before.token)).map(|_| ()),
        None => Ok(()),
    }
}

/// The thread has ended.
pub(crate) fn thread_ended(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<()> {
    change(cx, thread.address, None)
}

/// A work item's routine has returned: its thread belongs to the system and must act for none.
pub(crate) fn check_worker(cx: &mut Cx<'_>, routine: u64, parameter: u64, item: u64) -> Flow<()> {
    if current(cx).is_none() {
        return Ok(());
    }
    let message =
        format!("the routine of the work item {item:#x} returned while its thread impersonates a client");
    let verdict = Verdict::error("impersonating-worker-thread", message);
    Err(cx.stop(verdict.bug_check(0xDF, [routine, parameter, item, 0])))
}

/// `PsImpersonateClient`.
///
/// # Errors
/// A verdict if there is no such thread, or it is no token.
pub(crate) fn impersonate(
    cx: &mut Cx<'_>,
    thread: DriverPtr<KTHREAD>,
    token: TokenPtr,
    copy_on_open: bool,
    effective_only: bool,
    level: u32,
) -> Flow<NtStatus> {
    const DDI: &str = "PsImpersonateClient";
    system_thread::ask(cx, DDI, thread, |_| ())?;
    let new = if token.is_null() {
        None
    } else {
        token::get(cx, DDI, token)?;
        Some(Impersonation { token: token.address, level, copy_on_open, effective_only })
    };
    change(cx, thread.address, new)?;
    Ok(NtStatus::SUCCESS)
}

/// `PsRevertToSelf`: the running thread acts for none.
///
/// # Errors
/// None.
pub(crate) fn revert(cx: &mut Cx<'_>) -> Flow<()> {
    let thread = thread::current_object(cx);
    change(cx, thread.address, None)
}

const TAKEN_BY: &str = "PsReferenceImpersonationToken";

/// `PsReferenceImpersonationToken`: null if the thread acts for none.
///
/// # Errors
/// A verdict if there is no such thread, or on a bad pointer.
pub(crate) fn reference(
    cx: &mut Cx<'_>,
    thread: DriverPtr<KTHREAD>,
    copy_on_open: DriverPtr<u8>,
    effective_only: DriverPtr<u8>,
    level: DriverPtr<u32>,
) -> Flow<TokenPtr> {
    system_thread::ask(cx, TAKEN_BY, thread, |_| ())?;
    let Some(found) = cx.with(|k| of(k, thread.address)) else { return Ok(TokenPtr::NULL) };
    cx.write(copy_on_open, found.copy_on_open.into())?;
    cx.write(effective_only, found.effective_only.into())?;
    cx.write(level, found.level)?;
    token::take(cx, TAKEN_BY, found.token)?;
    Ok(TokenPtr::new(found.token))
}

/// `PsDereferenceImpersonationToken`: of null, which [`reference()`] has returned, nothing.
///
/// # Errors
/// A verdict if it is no token.
pub(crate) fn dereference(cx: &mut Cx<'_>, token: TokenPtr) -> Flow<()> {
    if token.is_null() {
        return Ok(());
    }
    token::get(cx, "PsDereferenceImpersonationToken", token)?;
    token::give_back(cx, TAKEN_BY, token.address)
}

/// `SeCreateClientSecurity`: for who the thread acts for, or for its process.
///
/// # Errors
/// A verdict if there is no such thread, or on a bad pointer.
pub(crate) fn create_client(
    cx: &mut Cx<'_>,
    thread: DriverPtr<KTHREAD>,
    quality: DriverPtr<Quality>,
    remote: bool,
    client: DriverPtr<Client>,
) -> Flow<NtStatus> {
    let process = system_thread::ask(cx, "SeCreateClientSecurity", thread, |identity| identity.process)?;
    let (acting, primary) = cx.with(|k| (of(k, thread.address), token::of_process(k, process)));
    let token = acting.map_or(primary, |acting| acting.token);
    let level = acting.map(|acting| (acting.level, acting.effective_only));
    describe(cx, token, level, quality, remote, client)
}

/// `SeCreateClientSecurityFromSubjectContext`.
///
/// # Errors
/// A verdict if the context holds no token, or on a bad pointer.
pub(crate) fn create_client_from(
    cx: &mut Cx<'_>,
    subject: Subject,
    quality: DriverPtr<Quality>,
    remote: bool,
    client: DriverPtr<Client>,
) -> Flow<NtStatus> {
    type S = SECURITY_SUBJECT_CONTEXT;
    let acting = cx.read(subject + S::ClientToken)?;
    let level = cx.read(subject + S::ImpersonationLevel)?;
    let primary = cx.read(subject + S::PrimaryToken)?;
    let token = if acting.is_null() { primary } else { acting };
    token::get(cx, "SeCreateClientSecurityFromSubjectContext", token)?;
    let level = (!acting.is_null()).then_some((level, false));
    describe(cx, token.address, level, quality, remote, client)
}

/// A client's context: with the token itself if changes of it are to be followed, else with a copy.
fn describe(
    cx: &mut Cx<'_>,
    token: u64,
    acting: Option<(u32, bool)>,
    quality: DriverPtr<Quality>,
    remote: bool,
    client: DriverPtr<Client>,
) -> Flow<NtStatus> {
    let least = if remote { SecurityDelegation } else { SecurityImpersonation };
    if acting.is_some_and(|(level, _)| level < least) {
        return Ok(NtStatus::BAD_IMPERSONATION_LEVEL);
    }
    let quality = cx.read(quality)?;
    let directly = quality.get(Quality::ContextTrackingMode) != 0 && !remote;
    let of_primary = token::get(cx, "SeCreateClientSecurity", TokenPtr::new(token))?;
    let given = if directly {
        let taken_by = if of_primary.level.is_none() { token::PRIMARY } else { TAKEN_BY };
        token::take(cx, taken_by, token)?;
        token
    } else {
        let level = quality.get(Quality::ImpersonationLevel);
        token::copy_for(cx, TAKEN_BY, token::Token { level: Some(level), ..of_primary.clone() })?
    };
    let mut control = TOKEN_CONTROL::zeroed();
    control.set(TOKEN_CONTROL::TokenId, luid(of_primary.id));
    control.set(TOKEN_CONTROL::AuthenticationId, luid(of_primary.authentication));
    control.set(TOKEN_CONTROL::ModifiedId, luid(of_primary.id));
    cx.write(client + Client::SecurityQos, quality)?;
    cx.write(client + Client::ClientToken, TokenPtr::new(given))?;
    cx.write(client + Client::DirectlyAccessClientToken, directly.into())?;
    cx.write(
        client + Client::DirectAccessEffectiveOnly,
        acting.is_some_and(|(_, only)| only && directly).into(),
    )?;
    cx.write(client + Client::ServerIsRemote, remote.into())?;
    cx.write(client + Client::ClientTokenControl, control)?;
    Ok(NtStatus::SUCCESS)
}

/// `SeImpersonateClient`: as [`impersonate_client`], which says nothing of what came of it.
///
/// # Errors
/// As [`impersonate_client`].
pub(crate) fn impersonate_client_silently(
    cx: &mut Cx<'_>,
    client: DriverPtr<Client>,
    thread: DriverPtr<KTHREAD>,
) -> Flow<()> {
    impersonate_client(cx, client, thread).map(|_| ())
}

/// `SeImpersonateClientEx`: a thread, or the one that calls.
///
/// # Errors
/// As [`impersonate`]; a verdict on a bad pointer.
pub(crate) fn impersonate_client(
    cx: &mut Cx<'_>,
    client: DriverPtr<Client>,
    thread: DriverPtr<KTHREAD>,
) -> Flow<NtStatus> {
    let token = cx.read(client + Client::ClientToken)?;
    let quality = cx.read(client + Client::SecurityQos)?;
    let directly = cx.read(client + Client::DirectlyAccessClientToken)? != 0;
    let effective_only = if directly {
        cx.read(client + Client::DirectAccessEffectiveOnly)? != 0
    } else {
        quality.get(Quality::EffectiveOnly) != 0
    };
    let thread = if thread.is_null() { thread::current_object(cx) } else { thread };
    impersonate(cx, thread, token, directly, effective_only, quality.get(Quality::ImpersonationLevel))
}
