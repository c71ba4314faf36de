//! `process`, `exit`: processes besides the first, with handles and memory of their own.
//!
//! A process' first thread is a lane of the same name. Not here: processes that drivers begin, which they cannot.

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::io::cancel;
use kernel::ke::{thread, wait};
use kernel::ob::handle::{self, Mode};
use kernel::ob::{self, Handle};
use kernel::ps::{self, process, user_image};

use super::carry::Outcome;
use super::expect::judge;
use super::{Stage, request};
use crate::machine::Completion;
use crate::script::Expectations;

/// A number that no process has a handle by.
const NOT_THERE: Handle = Handle(0x7FFF_FFF0);

/// Begins a process, which has the handles of the running thread's that can be inherited if that is said, and a command line.
pub(super) fn begin(
    stage: &Stage,
    cx: &mut Cx<'_>,
    name: &str,
    (inherits, command): (bool, Option<&str>),
    expect: &Expectations,
) -> Flow<Outcome> {
    let (parent, image) = (ps::current_process(cx), format!("{name}.exe"));
    let child = process::create(cx, image.clone())?;
    let status = ps::create_notify::tell(cx, child, command.unwrap_or(&image))?;
    if status.is_success() {
        if user_image::are_noticed(cx) {
            let first = format!("first thread of {name}");
            thread::wait_for_application(cx, first, child, user_image::load_first)?;
        }
        let own: Vec<_> = stage.with(|state| {
            let own = state.handles.get(&parent).into_iter().flatten();
            own.map(|(name, handle)| (name.clone(), *handle)).collect()
        });
        // What it has not inherited it can name all the same.
        let mut named = Vec::new();
        for (name, handle) in own {
            let inherited =
                inherits && handle::entry(cx, handle, Mode::User).is_ok_and(|entry| entry.inherit);
            named.push((name, if inherited { handle } else { NOT_THERE }));
        }
        if inherits {
            handle::inherit(cx, parent, child)?;
        }
        stage.with(|state| {
            state.processes.insert(name.to_owned(), child);
            state.handles.entry(child).or_default().extend(named);
        });
    } else {
        process::end(cx, child)?;
    }
    Ok(judge(&stage.play, &Completion::status(status), expect))
}

/// The running thread's process opens one of this name.
pub(super) fn open(
    stage: &Stage,
    cx: &mut Cx<'_>,
    name: &str,
    (new, access): (&str, u32),
    expect: &Expectations,
) -> Flow<Outcome> {
    let Some(key) = stage.with(|state| state.processes.get(name).copied()) else {
        return Ok(Err(gone(name)));
    };
    let opened = process::open_by_application(cx, key, access)?;
    if let Ok(handle) = opened {
        stage.keep(cx, new, handle);
    }
    let status = opened.err().unwrap_or(NtStatus::SUCCESS);
    Ok(judge(&stage.play, &Completion::status(status), expect))
}

fn gone(name: &str) -> String {
    format!("there is no process {name} (now)")
}

/// The process exits: its thread ends, its requests are cancelled, its handles closed, its memory goes.
pub(super) fn exit(stage: &Stage, cx: &mut Cx<'_>, name: &str) -> Flow<Outcome> {
    let Some(key) = stage.with(|state| state.processes.get(name).copied()) else {
        return Ok(Err(gone(name)));
    };
    let object = process::object(cx, key);
    ob::object::reference(cx, object)?;
    let (own, lane) = (stage.clone(), name.to_owned());
    let body: thread::Work = Box::new(move |cx| {
        if own.is_busy(&lane) {
            let _ = own.to_thread(cx, &lane, kernel::ke::user_apc::end)?;
            own.join(cx, &lane)?;
        }
        let _ = request::run_down(&own, cx)?;
        cancel::rundown_thread(cx)?;
        handle::close_all(cx, key)?;
        process::end(cx, key)
    });
    thread::spawn_application(cx, format!("exit of {name}"), key, body)?;
    let _ = wait::for_object(cx, object)?;
    ob::object::dereference(cx, object)?;
    stage.with(|state| state.processes.remove(name));
    Ok(Ok(()))
}

/// All that have not exited, as the first one does.
pub(super) fn exit_all(stage: &Stage, cx: &mut Cx<'_>) -> Flow<()> {
    while let Some(name) = stage.with(|state| state.processes.keys().next().cloned()) {
        let _ = exit(stage, cx, &name)?;
    }
    Ok(())
}
