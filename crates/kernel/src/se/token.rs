//! Access tokens: whose process it is, its groups and privileges.
//!
//! Pages: *Access Tokens*, *PsReferencePrimaryToken function*, *SeTokenIsAdmin function*, *Well-known SIDs*, *Privilege Constants*. Drivers
//! see a token as an address. There are three kinds of user; an administrator is one whose application has enabled all the privileges that
//! it has. A thread that acts for a client has that one's token (`impersonation`).

use std::collections::BTreeMap;

use abi::{
    ACCESS_ALLOWED_ACE_TYPE, DriverPtr, GENERIC_ALL, KPROCESS, LUID, NtStatus, SE_GROUP_ENABLED,
    SE_GROUP_ENABLED_BY_DEFAULT, SE_GROUP_MANDATORY, SE_GROUP_OWNER, SE_GROUP_USE_FOR_DENY_ONLY,
    SE_PRIVILEGE_ENABLED, SE_PRIVILEGE_ENABLED_BY_DEFAULT, SecurityImpersonation, TokenImpersonation,
    TokenPrimary,
};
use engine::Flow;

use super::acl::{Acl, Entry};
use super::impersonation;
use super::sid::Sid;
use crate::cx::{Cx, Kernel};
use crate::exports::data;
use crate::ob::{self, Kind, Procedures, account};
use crate::ps;
use crate::verdict::Verdict;

/// An access token, as drivers see it: an address.
pub type TokenPtr = DriverPtr<()>;

/// What kind of user a process belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum User {
    /// The system itself.
    System,
    /// A member of Administrators, elevated.
    #[default]
    Administrator,
    /// A member of Users and no more.
    Plain,
}

/// What a token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    /// `TokenId`.
    pub(crate) id: u64,
    /// The logon that it is of: `AuthenticationId`.
    pub(crate) authentication: u64,
    pub(crate) user: Sid,
    /// With `SE_GROUP_…`.
    pub(crate) groups: Vec<(Sid, u32)>,
    /// By the low part of the LUID, with `SE_PRIVILEGE_…`.
    pub(crate) privileges: Vec<(u32, u32)>,
    /// Who owns what is made with it.
    pub(crate) owner: Sid,
    pub(crate) group: Sid,
    /// `SECURITY_MANDATORY_…_RID`.
    pub(crate) integrity: u32,
    /// 0 is the system's, and the one user's is 1.
    pub(crate) session: u32,
    /// `SecurityImpersonation` and others, of an impersonation token; none of a primary one.
    pub(crate) level: Option<u32>,
    /// The user counts where a list refuses, and not where it grants.
    pub(crate) user_only_refuses: bool,
    /// Of a restricted token: who has to be granted access besides.
    pub(crate) restricting: Option<Vec<Sid>>,
}

/// The authority of S-1-5.
pub(crate) const NT: u64 = 5;
const BUILTIN: u32 = 32;
/// The accounts of this computer.
const COMPUTER: [u32; 4] = [21, 1_111_111_111, 2_222_222_222, 3_333_333_333];
const GROUP: u32 = SE_GROUP_MANDATORY | SE_GROUP_ENABLED_BY_DEFAULT | SE_GROUP_ENABLED;
const ENABLED: u32 = SE_PRIVILEGE_ENABLED | SE_PRIVILEGE_ENABLED_BY_DEFAULT;

/// S-1-5-18.
pub(crate) fn local_system() -> Sid {
    Sid::new(NT, &[18])
}

/// S-1-5-32-544.
pub(crate) fn administrators() -> Sid {
    Sid::new(NT, &[BUILTIN, 544])
}

/// S-1-1-0.
pub(crate) fn everyone() -> Sid {
    Sid::new(1, &[0])
}

fn account(number: u32) -> Sid {
    Sid::new(NT, &[&COMPUTER[..], &[number]].concat())
}

impl Token {
    fn of(user: User, id: u64) -> Self {
        match user {
            User::System => Self {
                id,
                authentication: 0x3E7,
                user: local_system(),
                groups: vec![
                    (administrators(), SE_GROUP_ENABLED_BY_DEFAULT | SE_GROUP_ENABLED | SE_GROUP_OWNER),
                    (everyone(), GROUP),
                    (Sid::new(NT, &[11]), GROUP),
                ],
                privileges: (2..=35).map(|privilege| (privilege, ENABLED)).collect(),
                owner: administrators(),
                group: local_system(),
                integrity: 0x4000,
                session: 0,
                level: None,
                user_only_refuses: false,
                restricting: None,
            },
            User::Administrator => Self {
                id,
                authentication: 0x1_0000,
                user: account(1001),
                groups: Self::groups(Some(GROUP | SE_GROUP_OWNER)),
                privileges: [
                    5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 22, 23, 24, 25, 28, 29, 30, 33, 34, 35,
                ]
                .map(|privilege| (privilege, SE_PRIVILEGE_ENABLED))
                .to_vec(),
                owner: administrators(),
                group: account(513),
                integrity: 0x3000,
                session: 1,
                level: None,
                user_only_refuses: false,
                restricting: None,
            },
            User::Plain => Self {
                id,
                authentication: 0x2_0000,
                user: account(1002),
                groups: Self::groups(None),
                privileges: vec![(19, 0), (23, ENABLED), (25, 0), (33, 0), (34, 0)],
                owner: account(1002),
                group: account(513),
                integrity: 0x2000,
                session: 1,
                level: None,
                user_only_refuses: false,
                restricting: None,
            },
        }
    }

    /// The groups of someone who has logged on at the console, with these attributes of Administrators.
    fn groups(administrator: Option<u32>) -> Vec<(Sid, u32)> {
        let mut groups = vec![(account(513), GROUP), (everyone(), GROUP)];
        groups.extend(administrator.map(|attributes| (administrators(), attributes)));
        let rest = [&[BUILTIN, 545][..], &[4], &[11], &[15]];
        groups.extend(rest.map(|parts| (Sid::new(NT, parts), GROUP)));
        groups.push((Sid::new(2, &[0]), GROUP));
        groups
    }

    /// Whether it is this one's, as an entry that grants asks, or one that refuses.
    pub(crate) fn is(&self, sid: &Sid, refuses: bool) -> bool {
        let counts = if refuses { SE_GROUP_ENABLED | SE_GROUP_USE_FOR_DENY_ONLY } else { SE_GROUP_ENABLED };
        self.user == *sid && (refuses || !self.user_only_refuses)
            || self.groups.iter().any(|(group, attributes)| group == sid && attributes & counts != 0)
    }

    /// Whether it has this privilege, enabled.
    pub(crate) fn has(&self, privilege: u32) -> bool {
        self.privileges.iter().any(|(known, with)| *known == privilege && with & SE_PRIVILEGE_ENABLED != 0)
    }

    /// `TOKEN_TYPE`.
    pub(crate) fn kind(&self) -> u32 {
        if self.level.is_some() { TokenImpersonation } else { TokenPrimary }
    }

    pub(crate) fn is_administrator(&self) -> bool {
        self.is(&administrators(), false)
    }

    /// Who may do what with what is made with it: the system, and its owner.
    pub(crate) fn default_dacl(&self) -> Acl {
        let all = |sid: &Sid| Entry::new(ACCESS_ALLOWED_ACE_TYPE, 0, GENERIC_ALL, sid);
        Acl::new(vec![all(&self.owner), all(&local_system())])
    }
}

/// A number as the LUID that it is.
pub(crate) fn luid(number: u64) -> LUID {
    let mut luid = LUID::zeroed();
    luid.set(LUID::LowPart, u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0));
    luid.set(LUID::HighPart, i32::try_from(number >> 32).unwrap_or(0));
    luid
}

/// All tokens, by their addresses.
#[derive(Default)]
pub(crate) struct Tokens {
    all: BTreeMap<u64, Token>,
    /// The primary token of a process, by its key.
    primary: BTreeMap<u64, u64>,
    last_id: u64,
}

static PROCEDURES: Procedures = Procedures { close: Procedures::nothing, delete };

fn delete(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    cx.with(|k| k.se.tokens.all.remove(&object));
    Ok(())
}

/// A new token, with an id of its own and one reference: its address.
pub(super) fn make(cx: &mut Cx<'_>, token: Token) -> Flow<u64> {
    let free = cx.with(|k| data::tokens().find(|at| !k.se.tokens.all.contains_key(at)));
    let Some(at) = free else {
        return Err(cx.stop(Verdict::not_implemented("more access tokens than fit on their page")));
    };
    ob::object::create(cx, at, Kind::Token, "", &PROCEDURES).expect("a token has no name that could clash");
    cx.with(|k| {
        let tokens = &mut k.se.tokens;
        tokens.last_id += 1;
        tokens.all.insert(at, Token { id: 0x1000 + tokens.last_id, ..token });
    });
    Ok(at)
}

/// The token has these privileges from now on.
pub(super) fn set_privileges(k: &mut Kernel, at: u64, privileges: Vec<(u32, u32)>) {
    if let Some(token) = k.se.tokens.all.get_mut(&at) {
        token.privileges = privileges;
    }
}

/// A new token whose reference is the calling driver's.
pub(crate) fn copy_for(cx: &mut Cx<'_>, taken_by: &'static str, token: Token) -> Flow<u64> {
    let at = make(cx, token)?;
    account::note(cx, taken_by, at);
    Ok(at)
}

/// Gives a process the token of such a user; it had none, or lets go of the one it had.
///
/// # Errors
/// A verdict if there are more tokens than there is room for.
pub fn assign(cx: &mut Cx<'_>, process: u64, user: User) -> Flow<()> {
    let at = make(cx, Token::of(user, 0))?;
    match cx.with(|k| k.se.tokens.primary.insert(process, at)) {
        Some(before) => ob::object::dereference(cx, TokenPtr::new(before)).map(|_| ()),
        None => Ok(()),
    }
}

/// The process has ended: its token goes when nothing refers to it any more.
pub(crate) fn release(cx: &mut Cx<'_>, process: u64) -> Flow<()> {
    match cx.with(|k| k.se.tokens.primary.remove(&process)) {
        Some(token) => ob::object::dereference(cx, TokenPtr::new(token)).map(|_| ()),
        None => Ok(()),
    }
}

/// The primary token of a process; the system's, if it has none any more.
pub(crate) fn of_process(k: &Kernel, process: u64) -> u64 {
    let primary = &k.se.tokens.primary;
    primary.get(&process).or_else(|| primary.get(&ps::process::SYSTEM)).copied().unwrap_or(0)
}

/// What the token of the running thread says: of whom it acts for, or of its process.
///
/// # Errors
/// `BAD_IMPERSONATION_LEVEL` if it may not do more than tell who that is.
pub(crate) fn current(cx: &mut Cx<'_>) -> Result<Token, NtStatus> {
    with_current(cx, |_, token| token.clone())
}

/// As [`current`], for a look at it.
///
/// # Errors
/// As [`current`].
pub(crate) fn with_current<T>(
    cx: &mut Cx<'_>,
    look: impl FnOnce(&Kernel, &Token) -> T,
) -> Result<T, NtStatus> {
    let process = ps::current_process(cx);
    let token = match impersonation::current(cx) {
        Some(acting) if acting.level < SecurityImpersonation => {
            return Err(NtStatus::BAD_IMPERSONATION_LEVEL);
        }
        Some(acting) => acting.token,
        None => cx.with(|k| of_process(k, process)),
    };
    Ok(cx.with(|k| match k.se.tokens.all.get(&token) {
        Some(known) => look(k, known),
        None => look(k, &Token::of(User::System, 0)),
    }))
}

/// What this token says.
///
/// # Errors
/// A verdict if it is none.
pub(crate) fn get(cx: &mut Cx<'_>, ddi: &str, token: TokenPtr) -> Flow<Token> {
    match cx.with(|k| k.se.tokens.all.get(&token.address).cloned()) {
        Some(token) => Ok(token),
        None => {
            let message = format!("{ddi} was called for {:#x}, which is no access token", token.address);
            Err(cx.stop(Verdict::error("not-a-token", message)))
        }
    }
}

/// A reference to a token for the driver that calls.
pub(crate) fn take(cx: &mut Cx<'_>, taken_by: &'static str, token: u64) -> Flow<()> {
    ob::object::reference(cx, TokenPtr::new(token))?;
    account::note(cx, taken_by, token);
    Ok(())
}

/// That reference is given back.
pub(crate) fn give_back(cx: &mut Cx<'_>, taken_by: &'static str, token: u64) -> Flow<()> {
    account::forget(cx, token, |known| known == taken_by);
    ob::object::dereference(cx, TokenPtr::new(token)).map(|_| ())
}

/// Who takes a reference to a primary token.
pub(crate) const PRIMARY: &str = "PsReferencePrimaryToken";

/// `PsReferencePrimaryToken`: the process's token, with a reference.
///
/// # Errors
/// A verdict if there is no such process.
pub fn reference_primary(cx: &mut Cx<'_>, process: DriverPtr<KPROCESS>) -> Flow<TokenPtr> {
    let key = ps::process::key(cx, PRIMARY, process)?;
    let token = cx.with(|k| of_process(k, key));
    take(cx, PRIMARY, token)?;
    Ok(TokenPtr::new(token))
}

/// `PsDereferencePrimaryToken`.
///
/// # Errors
/// A verdict if it is no token.
pub fn dereference_primary(cx: &mut Cx<'_>, token: TokenPtr) -> Flow<()> {
    get(cx, "PsDereferencePrimaryToken", token)?;
    give_back(cx, PRIMARY, token.address)
}

/// `SeTokenIsAdmin`.
///
/// # Errors
/// As [`dereference_primary`], here and below.
pub fn is_admin(cx: &mut Cx<'_>, token: TokenPtr) -> Flow<bool> {
    Ok(get(cx, "SeTokenIsAdmin", token)?.is_administrator())
}

/// `SeTokenIsRestricted`: whether it has restricting SIDs.
///
/// # Errors
/// As [`is_admin`].
pub fn is_restricted(cx: &mut Cx<'_>, token: TokenPtr) -> Flow<bool> {
    Ok(get(cx, "SeTokenIsRestricted", token)?.restricting.is_some())
}

/// `SeTokenType`.
///
/// # Errors
/// As [`is_admin`].
pub fn token_type(cx: &mut Cx<'_>, token: TokenPtr) -> Flow<u32> {
    Ok(get(cx, "SeTokenType", token)?.kind())
}

/// `SeQueryAuthenticationIdToken`: which logon it is of.
///
/// # Errors
/// As [`is_admin`].
pub fn authentication_id(cx: &mut Cx<'_>, token: TokenPtr, id: DriverPtr<LUID>) -> Flow<NtStatus> {
    let authentication = get(cx, "SeQueryAuthenticationIdToken", token)?.authentication;
    cx.write(id, luid(authentication))?;
    Ok(NtStatus::SUCCESS)
}

/// `SeQuerySessionIdToken`.
///
/// # Errors
/// As [`is_admin`].
pub fn session_id(cx: &mut Cx<'_>, token: TokenPtr, id: DriverPtr<u32>) -> Flow<NtStatus> {
    let session = get(cx, "SeQuerySessionIdToken", token)?.session;
    cx.write(id, session)?;
    Ok(NtStatus::SUCCESS)
}
