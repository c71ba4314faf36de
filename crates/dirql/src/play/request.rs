//! `open`, `read`, `write`, `ioctl`, `async`, `join`, `memory`, `unmap`, `cancel`, `close`.

use abi::{
    DriverPtr, FILE_NO_INTERMEDIATE_BUFFERING, FILE_SYNCHRONOUS_IO_NONALERT, GENERIC_READ, GENERIC_WRITE,
    IO_STATUS_BLOCK, NtStatus,
};
use engine::Flow;
use kernel::Cx;
use kernel::io::file::{self, Buffer, OpenOptions};
use kernel::io::{cancel, interface};
use kernel::mm::user;
use kernel::ob::{Handle, duplicate, handle as handles};
use kernel::ps;

use super::carry::Outcome;
use super::expect::judge;
use super::{Stage, owed};
use crate::machine::transfer::{self, Completion, Transfer};
use crate::script::suggest::nearest;
use crate::script::{Access, Cancel, Data, Expectations, Name, Open, Operation, Path, Request};

/// Both `FILE_SHARE_READ` and `FILE_SHARE_WRITE`.
const SHARED: u16 = 3;

pub(super) fn open(stage: &Stage, cx: &mut Cx<'_>, open: &Open) -> Flow<Outcome> {
    let access = match open.access {
        Access::ReadWrite => GENERIC_READ | GENERIC_WRITE,
        Access::Read => GENERIC_READ,
        Access::Write => GENERIC_WRITE,
    };
    let options = OpenOptions {
        access,
        share: if open.exclusive { 0 } else { SHARED },
        options: (if open.overlapped { 0 } else { FILE_SYNCHRONOUS_IO_NONALERT })
            | (if open.unbuffered { FILE_NO_INTERMEDIATE_BUFFERING } else { 0 }),
        ..OpenOptions::default()
    };
    let path = match &open.path {
        Path::Name(name) => name.clone(),
        Path::Interface(class) => {
            match cx.with(|k| interface::of_class(k, class, None, false).into_iter().next()) {
                Some(path) => path,
                None => return Ok(Err(format!("no interface of class {class} is enabled"))),
            }
        }
    };
    let opened = file::open(cx, &path, &options)?;
    let status = opened.err().unwrap_or(NtStatus::SUCCESS);
    let judged = judge(&stage.play, &Completion::status(status), &open.expect);
    let judged = judged.map_err(|why| match status {
        NtStatus::OBJECT_NAME_NOT_FOUND | NtStatus::OBJECT_PATH_NOT_FOUND => why + &known_names(cx, &path),
        _ => why,
    });
    if let Ok(handle) = opened {
        stage.keep(cx, &open.handle, handle);
        if open.inherits {
            return Ok(judged.and(set_inherit(cx, (&open.handle, handle), true)));
        }
    }
    Ok(judged)
}

impl Stage {
    /// A handle that the running thread's process has opened gets a name.
    pub(super) fn keep(&self, cx: &mut Cx<'_>, name: &str, handle: Handle) {
        let process = ps::current_process(cx);
        self.with(|state| state.handles.entry(process).or_default().insert(name.to_owned(), handle));
    }
}

/// Whether processes that are begun later have it too.
pub(super) fn inherit(stage: &Stage, cx: &mut Cx<'_>, name: &str, inherits: bool) -> Outcome {
    let handle = handle(stage, cx, name)?;
    set_inherit(cx, (name, handle), inherits)
}

fn set_inherit(cx: &mut Cx<'_>, (name, handle): (&str, Handle), inherits: bool) -> Outcome {
    let set = handles::set_inherit(cx, handle, inherits);
    set.map_err(|status| format!("whether `{name}` is inherited cannot be set: {status}"))
}

/// Which names drivers have made known to applications, for one that was not found.
fn known_names(cx: &mut Cx<'_>, wanted: &str) -> String {
    const SHOWN: usize = 8;
    let names: Vec<String> = cx.with(|k| {
        let made = k.ob.names.dos_devices().filter(|(_, target)| target.starts_with(r"\Device\"));
        made.map(|(name, _)| format!(r"\\.\{name}")).collect()
    });
    if let Some(near) = nearest(wanted, names.iter().map(String::as_str)) {
        return format!("; did you mean `{near}`?");
    }
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => r"; no driver has made a name known (IoCreateSymbolicLink below \DosDevices)".to_owned(),
        more if more > SHOWN => format!("; there are: {shown} and {} more", more - SHOWN),
        _ => format!("; there are: {shown}"),
    }
}

/// The handle of this name in the running thread's process, which another thread may not have opened yet.
pub(super) fn handle(stage: &Stage, cx: &mut Cx<'_>, name: &str) -> Result<Handle, String> {
    let process = ps::current_process(cx);
    let handle = stage.with(|state| state.handles.get(&process)?.get(name).copied());
    handle.ok_or_else(|| format!("`{name}` is not open (now)"))
}

fn transfer<'r>(stage: &Stage, cx: &mut Cx<'_>, request: &'r Request) -> Result<Transfer<'r>, String> {
    let mut bytes = |data| stage.sent(cx, data);
    let transfer = match &request.operation {
        Operation::Read { length, offset } => Transfer::Read { length: *length, offset: *offset },
        Operation::Write { data, offset } => Transfer::Write { data: bytes(data), offset: *offset },
        Operation::Scatter { length, offset } => Transfer::Scatter { length: *length, offset: *offset },
        Operation::Gather { data, offset } => Transfer::Gather { data: bytes(data), offset: *offset },
        Operation::Ioctl { code, input, output } => {
            let input = input.as_ref().map(bytes).unwrap_or_default();
            Transfer::Control { code: *code, input, output: *output }
        }
        Operation::Flush => Transfer::Flush,
        Operation::Query { class, length } => Transfer::Query { class: *class, length: *length },
        Operation::Set { class, data } => Transfer::Set { class: *class, data: bytes(data) },
    };
    if request.input.is_none() && request.output.is_none() {
        return Ok(transfer);
    }
    let place = |name: &Option<Name>| match name {
        None => Ok(None),
        Some(name) => stage.with(|state| match state.memory.get(&**name) {
            Some(buffer) => Ok(Some(*buffer)),
            None => Err(format!("memory {name} is not there (yet)")),
        }),
    };
    let (input, output) = (place(&request.input)?, place(&request.output)?);
    Ok(Transfer::Placed { transfer: Box::new(transfer), input, output })
}

/// The application takes memory, and has these bytes in it.
pub(super) fn memory(
    stage: &Stage,
    cx: &mut Cx<'_>,
    name: &str,
    data: &Data,
    read_only: bool,
) -> Flow<Outcome> {
    let bytes = stage.sent(cx, data);
    let Some(buffer) = transfer::allocate(cx, &bytes)? else {
        return Ok(Err("the application has no memory left".to_owned()));
    };
    if read_only {
        user::protect(cx, buffer.address, false);
    }
    stage.with(|state| {
        state.pointers.insert(name.to_owned(), buffer.address);
        state.memory.insert(name.to_owned(), buffer)
    });
    Ok(Ok(()))
}

/// An address gets a name, whatever lies there.
pub(super) fn memory_at(stage: &Stage, name: &str, address: u64, length: u32) {
    stage.with(|state| {
        state.pointers.insert(name.to_owned(), address);
        state.memory.insert(name.to_owned(), Buffer { address, length })
    });
}

/// What is in memory at an offset gets another name, and with that another length.
pub(super) fn memory_of(stage: &Stage, name: &str, of: &str, (offset, length): (u64, u32)) -> Outcome {
    let Some(buffer) = stage.with(|state| state.memory.get(of).copied()) else {
        return Err(format!("memory {of} is not there (yet)"));
    };
    memory_at(stage, name, buffer.address.wrapping_add(offset), length);
    Ok(())
}

/// Memory of the application's goes away, in use or not.
pub(super) fn unmap(stage: &Stage, cx: &mut Cx<'_>, name: &str) -> Flow<Outcome> {
    // Where it was, it is still passed.
    let Some(buffer) = stage.with(|state| state.memory.get(name).copied()) else {
        return Ok(Err(format!("memory {name} is not there (yet)")));
    };
    Ok(if user::free(cx, buffer.address) {
        Ok(())
    } else {
        Err(format!("memory {name} stays: a driver has secured it"))
    })
}

/// What comes of a request.
fn ended(stage: &Stage, cx: &mut Cx<'_>, request: &Request) -> Flow<Result<Completion, String>> {
    match handle(stage, cx, &request.handle).and_then(|handle| Ok((handle, transfer(stage, cx, request)?))) {
        Ok((handle, transfer)) => Ok(Ok(transfer::perform(cx, handle, &transfer)?)),
        Err(why) => Ok(Err(why)),
    }
}

pub(super) fn perform(
    stage: &Stage,
    cx: &mut Cx<'_>,
    request: &Request,
    expect: &Expectations,
) -> Flow<Outcome> {
    let end = match ended(stage, cx, request)? {
        Ok(end) => end,
        Err(why) => return Ok(Err(why)),
    };
    Ok(judge(&stage.play, &end, expect))
}

/// A request whose output begins with an address: the application keeps it by `name`.
pub(super) fn point(
    stage: &Stage,
    cx: &mut Cx<'_>,
    name: &str,
    request: &Request,
    expect: &Expectations,
) -> Flow<Outcome> {
    keep_beginning(stage, cx, (request, expect), "address", |state, bytes| {
        state.pointers.insert(name.to_owned(), u64::from_le_bytes(bytes));
    })
}

/// A request whose output begins with a number: the application keeps it by `name`. One that fails answers none, and the name stands for what it did.
pub(super) fn number(
    stage: &Stage,
    cx: &mut Cx<'_>,
    name: &str,
    request: &Request,
    expect: &Expectations,
) -> Flow<Outcome> {
    keep_beginning(stage, cx, (request, expect), "number", |state, bytes| {
        state.answered.insert(name.to_owned(), u32::from_le_bytes(bytes));
    })
}

/// A request whose output begins with so many bytes, which are kept: a `what`.
fn keep_beginning<const BYTES: usize>(
    stage: &Stage,
    cx: &mut Cx<'_>,
    (request, expect): (&Request, &Expectations),
    what: &str,
    keep: impl FnOnce(&mut super::State, [u8; BYTES]),
) -> Flow<Outcome> {
    let end = match ended(stage, cx, request)? {
        Ok(end) => end,
        Err(why) => return Ok(Err(why)),
    };
    Ok(stage.with(|state| {
        judge(&stage.play, &end, expect)?;
        match end.data.first_chunk() {
            Some(bytes) => keep(state, *bytes),
            None if end.is_success() => {
                return Err(format!("{} bytes came, which are no {what} of {BYTES}", end.data.len()));
            }
            None => {}
        }
        Ok(())
    }))
}

/// Where a pointer points now, so many bytes on.
fn place(stage: &Stage, (name, offset): (&str, u64)) -> Result<u64, String> {
    let address = stage.with(|state| state.pointers.get(name).copied());
    let address = address.ok_or_else(|| format!("`{name}` has no address (yet)"))?;
    Ok(address.wrapping_add(offset))
}

/// The application loads from its memory.
pub(super) fn load(
    stage: &Stage,
    cx: &mut Cx<'_>,
    from: (&str, u64),
    length: u32,
    expect: &Expectations,
) -> Flow<Outcome> {
    let address = match place(stage, from) {
        Ok(address) => address,
        Err(why) => return Ok(Err(why)),
    };
    let end = transfer::load(cx, address, length)?;
    Ok(judge(&stage.play, &end, expect))
}

/// The application stores to its memory.
pub(super) fn store(
    stage: &Stage,
    cx: &mut Cx<'_>,
    to: (&str, u64),
    data: &Data,
    expect: &Expectations,
) -> Flow<Outcome> {
    let address = match place(stage, to) {
        Ok(address) => address,
        Err(why) => return Ok(Err(why)),
    };
    let bytes = stage.sent(cx, data);
    let end = transfer::store(cx, address, &bytes)?;
    Ok(judge(&stage.play, &end, expect))
}

pub(super) fn begin(
    stage: &Stage,
    cx: &mut Cx<'_>,
    name: &str,
    request: &Request,
    apc: bool,
) -> Flow<Outcome> {
    let (handle, transfer) = match handle(stage, cx, &request.handle)
        .and_then(|handle| Ok((handle, transfer(stage, cx, request)?)))
    {
        Ok(both) => both,
        Err(why) => return Ok(Err(why)),
    };
    let begun = transfer::begin(cx, handle, &transfer, apc)?;
    let id = begun.overlapped().map_or(0, |overlapped| overlapped.id);
    stage.with(|state| {
        state.told_of.insert(name.to_owned(), id);
        state.requests.insert(name.to_owned(), begun)
    });
    Ok(Ok(()))
}

pub(super) fn join(stage: &Stage, cx: &mut Cx<'_>, name: &str, expect: &Expectations) -> Flow<Outcome> {
    Ok(taken(stage, cx, name)?.and_then(|end| judge(&stage.play, &end, expect)))
}

/// Waits until the request of this name has completed; what comes of it. The name is free again.
pub(super) fn taken(stage: &Stage, cx: &mut Cx<'_>, name: &str) -> Flow<Result<Completion, String>> {
    match stage.with(|state| state.requests.remove(name)) {
        Some(begun) => begun.wait(cx).map(Ok),
        None => Ok(Err(not_made(name))),
    }
}

/// What is known of a request that `async` has made and `join` has not taken.
pub(super) struct State {
    /// How it has ended, if it has.
    pub(super) end: Option<NtStatus>,
    /// When it was asked for, and until when it was under way at least, as requests have the time.
    pub(super) asked: u64,
    pub(super) returned: u64,
    /// Where its end is written.
    pub(super) status_block: Option<DriverPtr<IO_STATUS_BLOCK>>,
}

/// The state of the request of this name.
pub(super) fn state(stage: &Stage, cx: &mut Cx<'_>, name: &str) -> Flow<Result<State, String>> {
    let Some(begun) = stage.with(|state| state.requests.remove(name)) else { return Ok(Err(not_made(name))) };
    let state = State {
        end: begun.status(cx)?,
        asked: begun.asked(),
        returned: begun.returned(),
        status_block: begun.overlapped().map(|overlapped| overlapped.status_block),
    };
    stage.with(|state| state.requests.insert(name.to_owned(), begun));
    Ok(Ok(state))
}

fn not_made(name: &str) -> String {
    format!("request {name} has not been made yet")
}

pub(super) fn cancel(stage: &Stage, cx: &mut Cx<'_>, what: &Cancel) -> Flow<Outcome> {
    owed::cancelled(stage, cx);
    match what {
        Cancel::Handle(name) => match handle(stage, cx, name) {
            Ok(handle) => file::cancel_io_ex(cx, handle).map(|_| Ok(())),
            Err(why) => Ok(Err(why)),
        },
        Cancel::Thread(name) => {
            stage.to_thread(cx, name, |cx, thread| cancel::cancel_thread(cx, thread).map(|_| ()))
        }
        Cancel::Request(name) => {
            let block = stage.with(|state| {
                let begun = state.requests.get(&**name)?;
                Some(begun.overlapped()?.status_block)
            });
            match block {
                Some(block) => cancel::cancel_request(cx, block).map(|_| Ok(())),
                None => Ok(Err(not_made(name))),
            }
        }
    }
}

pub(super) fn duplicate(stage: &Stage, cx: &mut Cx<'_>, name: &str, new: &str) -> Flow<Outcome> {
    let handle = match handle(stage, cx, name) {
        Ok(handle) => handle,
        Err(why) => return Ok(Err(why)),
    };
    Ok(match duplicate::of_own(cx, handle)? {
        Ok(copy) => {
            stage.keep(cx, new, copy);
            Ok(())
        }
        Err(status) => Err(format!("`{name}` cannot be duplicated: {status}")),
    })
}

pub(super) fn close(stage: &Stage, cx: &mut Cx<'_>, name: &str) -> Flow<Outcome> {
    let process = ps::current_process(cx);
    match stage.with(|state| state.handles.get_mut(&process)?.remove(name)) {
        Some(handle) => file::close(cx, handle).map(|_| Ok(())),
        None => Ok(Err(format!("`{name}` is not open (now)"))),
    }
}

/// Cancels what is under way and closes what is open, as when the process exits.
pub(super) fn close_all(stage: &Stage, cx: &mut Cx<'_>) -> Flow<()> {
    for handle in run_down(stage, cx)? {
        let _ = file::close(cx, handle)?;
    }
    Ok(())
}

/// Cancels what is under way in the running thread's process and waits for its end. Its handles, which have no names any more.
pub(super) fn run_down(stage: &Stage, cx: &mut Cx<'_>) -> Flow<Vec<Handle>> {
    let process = ps::current_process(cx);
    let own = stage.with(|state| state.handles.remove(&process)).unwrap_or_default();
    let own: Vec<Handle> = own.into_values().collect();
    for handle in &own {
        cancel::rundown_file(cx, *handle)?;
    }
    // Those of handles that are closed by now, too.
    let blocks: Vec<_> = stage.with(|state| {
        let under_way = state.requests.values().filter(|begun| begun.process == process);
        under_way.filter_map(|begun| Some(begun.overlapped()?.status_block)).collect()
    });
    for block in blocks {
        let _ = cancel::cancel_request(cx, block)?;
    }
    while let Some(begun) = stage.with(|state| {
        let name = state.requests.iter().find(|(_, begun)| begun.process == process)?.0.clone();
        state.requests.remove(&name)
    }) {
        let _ = begun.wait(cx)?;
    }
    Ok(own)
}
