//! One command of a script, carried out on the running thread. What comes back is why it is not what was expected.

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::hal::promptness;
use kernel::ke::{clock, patience, scheduler, user_apc, wait};
use kernel::ps::user_image;
use kernel::se::token;
use kernel::{pnp, ps};

use super::Stage;
use super::{counters, device, owed, port, process, registry, request, wmi};
use crate::script::{Cards, Command, User, Waitable};

/// Nothing, or in words what was expected and what was seen.
pub(super) type Outcome = Result<(), String>;

/// Carries out command `index`.
pub(super) fn out(stage: &Stage, cx: &mut Cx<'_>, index: usize) -> Flow<Outcome> {
    let statement = &stage.play.script.statements[index];
    let command = &statement.command;
    if let Command::Async { name, .. } | Command::Number { name, .. } = command {
        let words = stage.play.script.text_of(statement);
        stage.with(|state| state.asked.insert(name.to_string(), words.to_owned()));
    }
    if let Command::Async { name, .. } = command {
        owed::asked(stage, cx, name);
    }
    let within = command.within();
    patience::grant(cx, within);
    scheduler::before_command(cx)?;
    let outcome = carry_out(stage, cx, command)?;
    if matches!(command, Command::Pnp { .. } | Command::Power { .. }) {
        owed::changed(stage, cx);
    }
    if matches!(command, Command::Poke { .. }) && outcome.is_ok() {
        owed::happened(stage, cx, stage.play.script.text_of(statement));
    }
    if let Command::Close { handle } = command {
        owed::closed(stage, cx, handle);
    }
    if within.is_some() {
        patience::grant(cx, None);
    }
    Ok(outcome)
}

fn carry_out(stage: &Stage, cx: &mut Cx<'_>, command: &Command) -> Flow<Outcome> {
    stage.make(cx, command)?;
    match command {
        Command::Open(open) => request::open(stage, cx, open),
        Command::Request { request, expect } => request::perform(stage, cx, request, expect),
        Command::Async { name, request, apc } => request::begin(stage, cx, name, request, *apc),
        Command::Pointer { name, request, expect } => request::point(stage, cx, name, request, expect),
        Command::Number { name, request, expect } => request::number(stage, cx, name, request, expect),
        Command::Memory { name, data, read_only } => request::memory(stage, cx, name, data, *read_only),
        Command::MemoryAt { name, address, length } => {
            request::memory_at(stage, name, *address, *length);
            Ok(Ok(()))
        }
        Command::MemoryOf { name, of, offset, length } => {
            Ok(request::memory_of(stage, name, of, (*offset, *length)))
        }
        Command::Unmap(name) => request::unmap(stage, cx, name),
        Command::Load { pointer, offset, length, expect } => {
            request::load(stage, cx, (pointer, *offset), *length, expect)
        }
        Command::Store { pointer, offset, data, expect } => {
            request::store(stage, cx, (pointer, *offset), data, expect)
        }
        Command::JoinRequest { name, expect } => request::join(stage, cx, name, expect),
        Command::MustEnd { requests, behind, demand } => owed::must_end(stage, cx, requests, behind, *demand),
        Command::MustAnswer { name, answer, others } => owed::must_answer(stage, cx, name, answer, others),
        Command::MustLast { name, least, status } => {
            owed::must_last(stage, cx, name, *least, NtStatus(*status))
        }
        Command::MustBe { name, status } => owed::must_be(stage, cx, name, NtStatus(*status)),
        Command::MustDiffer { name, other } => Ok(owed::must_differ(stage, cx, name, other)),
        Command::JoinThread(name) => stage.join(cx, name).map(Ok),
        Command::Cancel(cancel) => request::cancel(stage, cx, cancel),
        Command::UserApc(name) => stage.to_thread(cx, name, user_apc::queue),
        Command::Port { name, threads } => port::make(stage, cx, name, *threads),
        Command::Bind { handle, port, key, skip, expect } => {
            port::bind(stage, cx, (handle, port), *key, *skip, expect)
        }
        Command::Dequeue { port, request, key, timeout, expect } => {
            port::dequeue(stage, cx, port, (request.as_deref(), *key), *timeout, expect)
        }
        Command::DequeueSeveral { port, most, alertable, timeout, expect } => {
            port::dequeue_several(stage, cx, port, (*most, *alertable), *timeout, expect)
        }
        Command::Post { port, key, bytes } => port::post(stage, cx, port, *key, *bytes),
        Command::Duplicate { handle, name } => request::duplicate(stage, cx, handle, name),
        Command::Terminate(name) => stage.to_thread(cx, name, user_apc::end),
        Command::Close { handle } => request::close(stage, cx, handle),
        Command::CloseEvent(name) => stage.close_event(cx, name),
        Command::Inherit { handle, inherits } => Ok(request::inherit(stage, cx, handle, *inherits)),
        Command::Process { name, inherits, command, expect } => {
            process::begin(stage, cx, name, (*inherits, command.as_deref()), expect)
        }
        Command::OpenProcess { process, handle, access, expect } => {
            process::open(stage, cx, process, (handle, *access), expect)
        }
        Command::LoadImage(path) => user_image::load(cx, path).map(Ok),
        Command::Registry(asked) => registry::act(stage, cx, asked),
        Command::Exit(name) => process::exit(stage, cx, name),
        Command::Wait { nanoseconds } => wait::sleep(cx, *nanoseconds).map(Ok),
        Command::WaitForLimit => wait::sleep_to_limit(cx).map(Ok),
        Command::WaitForPowerDown => device::wait_for_power_down(cx),
        Command::Clock { units } => clock::set_system_time_by(cx, *units).map(Ok),
        Command::Poke { device, signal, value } => device::poke(cx, device, signal, *value),
        Command::Cards(Cards::Silent) => promptness::fall_silent(cx).map(Ok),
        Command::Cards(Cards::Late(limit)) => promptness::be_late_once(cx, *limit).map(Ok),
        Command::Cards(Cards::Answer) => promptness::answer(cx).map(Ok),
        Command::Peek { device, register, expect } => Ok(device::look(stage, cx, (device, register), expect)),
        Command::Pool { tag, expect } => Ok(device::pool(stage, cx, tag, expect)),
        Command::Tolerate => {
            stage.with(|state| state.tolerant = true);
            Ok(Ok(()))
        }
        Command::Tree => pnp::tree::show(cx).map(Ok),
        Command::Interface { class, arrives } => pnp::foreign::change(cx, class.as_deref(), *arrives).map(Ok),
        Command::Unload { expect } => device::unload(stage, cx, expect),
        Command::Pnp { event, device, expect } => device::pnp(cx, *event, device.as_deref(), expect),
        Command::Power { state, device, expect } => device::power(cx, *state, device.as_deref(), expect),
        Command::Counters(asked) => counters::ask(stage, cx, asked),
        Command::WmiBlocks => kernel::wmi::shown::blocks(cx).map(Ok),
        Command::Wmi(asked) => wmi::ask(stage, cx, asked),
        Command::User(user) => {
            let user = match user {
                User::Administrator => token::User::Administrator,
                User::Plain => token::User::Plain,
            };
            let process = ps::current_process(cx);
            token::assign(cx, process, user).map(Ok)
        }
        Command::ExpectPrint(text) => Ok(printed(stage, text)),
        Command::ExpectPending(what) => pending(stage, cx, what),
    }
}

fn printed(stage: &Stage, text: &str) -> Outcome {
    stage.with(|state| match state.prints.find(state.printed, text) {
        Some(line) => {
            state.printed = line + 1;
            Ok(())
        }
        None => {
            let since: Vec<String> = state.prints.lines().split_off(state.printed.min(state.prints.len()));
            Err(match since.last() {
                Some(last) => {
                    format!("no line printed since contains it; the last of {} is `{last}`", since.len())
                }
                None => "nothing has been printed since".to_owned(),
            })
        }
    })
}

fn pending(stage: &Stage, cx: &mut Cx<'_>, what: &Waitable) -> Flow<Outcome> {
    match what {
        Waitable::Thread(name) => Ok(if stage.is_busy(name) {
            Ok(())
        } else {
            Err(format!("thread {name} has carried out all it was handed"))
        }),
        Waitable::Request(name) => {
            let end = request::state(stage, cx, name)?.map(|state| state.end);
            Ok(match end {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(format!("request {name} has completed")),
                Err(why) => Err(why),
            })
        }
    }
}
