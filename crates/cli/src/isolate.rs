//! Commands in two processes or more: those that run a machine, jailed, and one that watches them, prints, and tells how they ended.
//!
//! The second starts the first from its own program, with pipes for both outputs and one for what it says about itself:
//! what it has done so far, its last words, if it cannot go on, and as its last line that its report is complete. A driver can at worst end the
//! process of its own run; what was printed until then stays printed. What the machine does is none of this file's.

use std::fs::File;
use std::io::{self, BufWriter, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dirql::Jail;
use dirql::interrupts;
use dirql::outbox::{self, Outbox};
use dirql::pass::{self, Pass};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::NO_ANSWER;
use crate::arguments::Isolation;
use crate::crash_report::Death;
use crate::out::{self, complain};
use crate::outputs::Outputs;
use crate::terminal;

/// Behind `run` or `replay`, this makes the command the process that runs the machine; its value is the watcher's process id.
pub(crate) const CONFINED: &str = "confined";
/// Behind these two, what an earlier process of this command left to be done by this one.
pub(crate) const TURN: &str = "turn";
/// How the line begins that says that no driver code runs any more, with the exit code to be. The answer is a number that only the watcher
/// knew until then.
const OVER: &str = "over ";
/// How the line begins that says that the report is complete, with that number and the exit code.
const END: &str = "end ";
/// Behind `--`, the number of the file in which that number comes.
pub(crate) const PASS: &str = "pass";
/// How a line begins that tells what was done so far.
const DONE: &str = "done: ";
/// How the line begins that holds the last line of the command's output, whatever comes before it.
const LAST: &str = "last: ";
/// Behind `--`, the number of the file that holds what is on its way to standard output.
pub(crate) const OUTBOX: &str = "outbox";
/// Behind `--`, the number of the file that holds lines that are on their way to the watcher.
pub(crate) const LINES: &str = "line-outbox";
/// How the line begins that says what the next process is to do, if the code that follows stands, and if it does not.
const NEXT: [&str; 2] = ["after this: ", "instead: "];

/// The watcher's host clock: of a hang, nothing in the machine can tell.
#[allow(clippy::disallowed_types, reason = "it is read outside the machine, which it cannot influence")]
type Clock = std::time::Instant;

/// What a turn of a command has come to.
pub(crate) struct Done {
    /// The exit code.
    code: u8,
    next: Option<Next>,
    /// What stands behind everything that is printed.
    last: Option<String>,
}

/// What is left to be done: a process runs one machine, and can open no file any more.
struct Next {
    /// One line, an argument of the process that does it.
    what: String,
    /// It adds something, and the exit code stands.
    stands: bool,
}

impl Done {
    /// The command is over, with this exit code.
    pub(crate) fn with(code: u8) -> Self {
        Self { code, next: None, last: None }
    }

    /// This line is the last one, whatever another machine has to add.
    pub(crate) fn last(self, line: Option<String>) -> Self {
        Self { last: line, ..self }
    }

    /// Another machine decides.
    pub(crate) fn then(what: String) -> Self {
        Self { next: Some(Next { what, stands: false }), ..Self::with(NO_ANSWER) }
    }

    /// The command's exit code is this, and another machine has something to add.
    pub(crate) fn and(code: u8, what: String) -> Self {
        Self { next: Some(Next { what, stands: true }), ..Self::with(code) }
    }
}

/// Runs `command` in a process of its own, unless `isolation` says otherwise. It is given the jail that it must lock
/// itself in before the first driver instruction. A command may need several machines, one after the other: each turn gets
/// what the one before left, and has a process of its own.
///
/// `after_death` is as [`shown`] has it.
///
/// # Errors
/// Those of `command`; no process can be started.
pub(crate) fn in_turns(
    isolation: &Isolation,
    outputs: &Outputs,
    after_death: Option<&str>,
    mut command: impl FnMut(Option<Jail>, Option<&str>) -> Result<Done>,
) -> Result<u8> {
    if let Some(watcher) = isolation.confined {
        let confined = Confined::enter(watcher, isolation.pass)?;
        if let Some(number) = isolation.lines {
            Lines::collect(number)?;
        }
        let done = command(Some(confined.jail()), isolation.turn.as_deref());
        if let Ok(Done { last: Some(line), .. }) = &done {
            confined.say(&format!("{LAST}{line}"));
        }
        if let Ok(Done { next: Some(next), .. }) = &done {
            confined.say(&format!("{}{}", NEXT[usize::from(!next.stands)], next.what));
        }
        confined.end(done.as_ref().map_or_else(crate::exit_code, |done| done.code));
        return done.map(|done| done.code);
    }
    if isolation.in_process {
        return turn_by_turn(|turn| {
            let done = command(None, turn).inspect_err(|_| outputs.discard())?;
            outputs.keep()?;
            Ok(done)
        });
    }
    shown(isolation, &[], outputs, after_death)
}

/// Turns, until one leaves nothing to be done.
fn turn_by_turn(mut take: impl FnMut(Option<&str>) -> Result<Done>) -> Result<u8> {
    let (mut turn, mut standing, mut last) = (None::<String>, None, None);
    loop {
        let done = take(turn.as_deref())?;
        last = done.last.or(last);
        match done.next {
            None => {
                last.iter().for_each(|line| out::bytes(format!("{line}\n").as_bytes()));
                return Ok(standing.unwrap_or(done.code));
            }
            Some(next) => {
                if next.stands {
                    standing = standing.or(Some(done.code));
                }
                turn = Some(next.what);
            }
        }
    }
}

// ---- the process that runs the machine ----

/// The pipe to the watcher.
struct Confined {
    pipe: io::Stdin,
    pass: Pass,
}

impl Confined {
    /// Makes this process the one that `watcher` watches: it ends when the watcher does, and leaves no core file of a
    /// machine's hundreds of gigabytes of addresses.
    ///
    /// # Errors
    /// It was not started by a watcher.
    fn enter(watcher: u32, pass: Option<i32>) -> Result<Self> {
        let pipe = io::stdin();
        let is_pipe = rustix::fs::fstat(&pipe)
            .is_ok_and(|data| FileType::from_raw_mode(data.st_mode) == FileType::Fifo);
        let writes =
            rustix::fs::fcntl_getfl(&pipe).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::WRONLY);
        if !is_pipe || !writes {
            bail!(for_own_use(CONFINED));
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        let watched = rustix::process::getppid().and_then(|parent| Pid::as_raw(Some(parent)).try_into().ok());
        if watched != Some(watcher) {
            bail!("the process that watched this one is gone");
        }
        // Its watcher decides what becomes of it, and ends it by another signal.
        interrupts::ignore()?;
        // Should a driver use up the host's memory, it is this process that goes. Where that cannot be said, it is not.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        let file = pass.map(|number| File::open(format!("/proc/self/fd/{number}"))).transpose();
        let pass = file.and_then(|file| file.map(|file| Pass::new(&file)).transpose());
        let Ok(Some(pass)) = pass else { bail!(for_own_use(CONFINED)) };
        Ok(Self { pipe, pass })
    }

    /// What it may still do once driver code runs.
    fn jail(&self) -> Jail {
        Jail::new().emergency_log(&self.pipe)
    }

    /// Tells the watcher that everything was said.
    fn end(&self, code: u8) {
        Lines::flush();
        // The watcher takes silence for a death, and is right.
        self.say(&format!("{OVER}{code}"));
        self.say(&format!("{END}{:016x} {code}", self.pass.wait()));
    }

    fn say(&self, line: &str) {
        write_all(&self.pipe, format!("{line}\n").as_bytes());
    }
}

/// In the process that runs the machine: sends one more line to the watcher ([`watch`]), soon, or leaves it where the watcher finds it if this process dies.
pub(crate) fn tell(line: &str) {
    let mut lines = LINES_SENT.lock().unwrap_or_else(PoisonError::into_inner);
    let Lines { count, collected } = &mut *lines;
    let text = format!("{DONE}{count} {line}\n");
    *count += 1;
    match collected {
        // If the watcher is gone, so is this process soon.
        Some(out) => drop(out.write_all(text.as_bytes())),
        None => write_all(&io::stdin(), text.as_bytes()),
    }
}

/// The number of a line of [`tell`], and the line.
fn numbered(text: &str) -> Option<(u64, &str)> {
    let (number, line) = text.strip_prefix(DONE)?.split_once(' ')?;
    Some((number.parse().ok()?, line))
}

/// Lines for the watcher.
struct Lines {
    count: u64,
    collected: Option<Paced<Outbox<Notes>>>,
}

static LINES_SENT: Mutex<Lines> = Mutex::new(Lines { count: 0, collected: None });

impl Lines {
    /// From now on they are collected in this file.
    fn collect(number: i32) -> Result<()> {
        let lines = paced(outbox_at(number, Notes).with_context(|| for_own_use(LINES))?, 0);
        LINES_SENT.lock().unwrap_or_else(PoisonError::into_inner).collected = Some(lines);
        Ok(())
    }

    fn flush() {
        let mut lines = LINES_SENT.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = lines.collected.as_mut().map(Write::flush);
    }
}

/// The pipe to the watcher.
struct Notes;

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdin(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn for_own_use(argument: &str) -> String {
    format!("--{argument} is for dirql's own use: leave it out")
}

/// If the watcher is gone, so is this process soon.
fn write_all(pipe: &io::Stdin, mut bytes: &[u8]) {
    while let Ok(length @ 1..) = rustix::io::write(pipe, bytes) {
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

impl Drop for Confined {
    /// A panic has its own message.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end(NO_ANSWER);
        }
    }
}

/// Standard output for what a machine's readers write: collected, where the watcher finds it if this process dies.
///
/// # Errors
/// The host's.
pub(crate) fn out(isolation: &Isolation) -> Result<impl Write + use<>> {
    Ok(paced(sink(isolation.outbox)?, UNLOOKED))
}

fn paced<W: Write>(out: W, most_unlooked: u32) -> Paced<W> {
    Paced { out, flushed: None, most_unlooked, unlooked: 0, left: 0 }
}

fn sink(outbox: Option<i32>) -> Result<Box<dyn Write>> {
    let Some(number) = outbox else { return Ok(Box::new(BufWriter::with_capacity(1 << 16, io::stdout()))) };
    Ok(Box::new(outbox_at(number, Unbuffered).with_context(|| for_own_use(OUTBOX))?))
}

fn outbox_at<W: Write>(number: i32, out: W) -> io::Result<Outbox<W>> {
    let file = File::options().read(true).write(true).open(format!("/proc/self/fd/{number}"))?;
    Outbox::new(&file, out)
}

/// Standard output, at once.
struct Unbuffered;

impl Write for Unbuffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line is on the terminal after this time at the latest.
const PACE: Duration = Duration::from_millis(100);

/// Lines of a trace of which the clock is not asked, at most.
const UNLOOKED: u32 = 15;

/// The first line comes out at once, and what follows in time, if more is written. While lines come fast the clock is asked seldom.
struct Paced<W> {
    out: W,
    flushed: Option<Clock>,
    most_unlooked: u32,
    /// Lines that pass between two looks at the clock now.
    unlooked: u32,
    /// How many of these are left.
    left: u32,
}

impl<W: Write> Paced<W> {
    /// A line has been written.
    fn line(&mut self) -> io::Result<()> {
        if self.left > 0 {
            self.left -= 1;
            return Ok(());
        }
        let is_due = self.flushed.is_none_or(|flushed| flushed.elapsed() >= PACE);
        self.unlooked = if is_due { 0 } else { (2 * self.unlooked + 1).min(self.most_unlooked) };
        self.left = self.unlooked;
        if is_due { self.flush() } else { Ok(()) }
    }
}

impl<W: Write> Write for Paced<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        if bytes.ends_with(b"\n") {
            self.line()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushed = Some(Clock::now());
        self.out.flush()
    }
}

// ---- the process that watches ----

/// Starts this command again with `more` arguments, in one process after the other, and prints what they print. The exit code is
/// the command's.
///
/// If the first one dies of itself, before its report, that may be the driver's doing: `after_death` begins the turn in which
/// another one finds out; how the first one died follows. If there is none, or it dies too, one message says so.
///
/// # Errors
/// A process cannot be started.
pub(crate) fn shown(
    isolation: &Isolation,
    more: &[String],
    outputs: &Outputs,
    after_death: Option<&str>,
) -> Result<u8> {
    let mut first: Option<Death> = None;
    turn_by_turn(|turn| {
        let argument = turn.map(|turn| format!("--{TURN}={turn}"));
        let rest = outbox::file().context("memory for what is printed")?;
        let outbox = format!("--{OUTBOX}={}", rest.as_raw_fd());
        let more: Vec<String> = more.iter().cloned().chain(argument).chain([outbox]).collect();
        let ended = end(start(&more, [Stdio::piped; 2], Some(&rest))?, isolation.host_limit());
        out::bytes(&outbox::rest(&rest).unwrap_or_default());
        let ended = ended?;
        let Some(death) = ended.death() else {
            outputs.keep()?;
            return Ok(ended.done());
        };
        outputs.discard();
        if let (None, Some(prefix), true) = (turn, after_death, death.is_of_itself()) {
            let next = format!("{prefix}{}", death.what());
            first = Some(death);
            return Ok(Done::then(next));
        }
        let again = after_death.is_some_and(|prefix| turn.is_some_and(|turn| turn.starts_with(prefix)));
        complain!("dirql: {}", death.crash_report(first.as_ref().filter(|_| again)));
        Ok(Done::with(NO_ANSWER))
    })
}

/// One such process, of which nothing is printed: its exit code, or how it died; and its lines of [`tell`].
///
/// # Errors
/// The process cannot be started.
pub(crate) fn untold(isolation: &Isolation, more: &[String]) -> Result<(Result<u8, Death>, Vec<String>)> {
    let ended = end(start(more, [Stdio::null; 2], None)?, isolation.host_limit())?;
    let lines = ended.said.lines().filter_map(numbered).map(|(_, line)| line.to_owned()).collect();
    Ok((ended.code().ok_or_else(|| ended.how()), lines))
}

/// How a process has ended whose lines were passed on.
pub(crate) enum End {
    /// With this exit code, and this was on its standard error.
    With(u8, String),
    /// Otherwise.
    Died(Death),
    /// By us.
    Stopped,
}

/// Starts this command again with `more` arguments, and gives `each` line of [`tell`] as it comes, until the process ends, or
/// `each` returns false, or `stop` is set. The host's limit is for the time between two lines. Nothing is printed.
///
/// # Errors
/// The process cannot be started.
pub(crate) fn watch(
    isolation: &Isolation,
    more: &[String],
    stop: &AtomicBool,
    mut each: impl FnMut(&str) -> bool,
) -> Result<End> {
    let rest = outbox::file().context("memory for what a process says")?;
    let more: Vec<String> = more.iter().cloned().chain([format!("--{LINES}={}", rest.as_raw_fd())]).collect();
    let (mut child, notes, mut secret) = start(&more, [Stdio::null, Stdio::piped], Some(&rest))?;
    let (mut line, mut said, mut errors) = (Vec::new(), String::new(), Vec::new());
    let (mut enough, mut count) = (false, 0);
    let mut each_once = |number: u64, text: &str| {
        // What was on its way when the process died may come once more.
        if number == count && !enough {
            count += 1;
            enough = !each(text);
        }
        enough
    };
    let mut take = |pipe, bytes: &[u8]| match pipe {
        Pipe::Notes => {
            let mut is_enough = false;
            line.extend_from_slice(bytes);
            while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let text = String::from_utf8_lossy(&line[..=end]).into_owned();
                line.drain(..=end);
                match numbered(text.trim_end()) {
                    Some((number, text)) => is_enough = each_once(number, text),
                    None => {
                        said.push_str(&text);
                        secret.hears(&said);
                    }
                }
            }
            is_enough
        }
        Pipe::Out | Pipe::Err => {
            errors.extend_from_slice(bytes);
            false
        }
    };
    let closed = relay(&mut child, &notes, isolation.host_limit(), Some(stop), &mut take);
    if closed != Closed::ByItself {
        child.kill().context(NOT_ENDED)?;
    }
    let status = child.wait().context(NOT_WAITED)?;
    let rest = String::from_utf8_lossy(&outbox::rest(&rest).unwrap_or_default()).into_owned();
    for (number, text) in rest.lines().filter_map(numbered) {
        each_once(number, text);
    }
    said.push_str(&String::from_utf8_lossy(&line));
    let hung_for = isolation.host_limit().filter(|_| closed == Closed::Hung);
    let ended = Ended { said, status, hung_for, number: secret.number };
    Ok(match ended.code() {
        _ if closed == Closed::Stopped => End::Stopped,
        Some(code) => End::With(code, String::from_utf8_lossy(&errors).into_owned()),
        None => End::Died(ended.how()),
    })
}

/// Starts this command again, with `more` arguments. `outputs` says where goes what it prints, and what of that are errors; `outbox` is
/// one that they name.
fn start(
    more: &[String],
    outputs: [fn() -> Stdio; 2],
    outbox: Option<&File>,
) -> Result<(Child, PipeReader, Secret)> {
    let (notes, its_end) = io::pipe().context("a pipe to the process that runs the machine")?;
    let secret = Secret::new().context("a random number")?;
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments.insert(1, format!("--{CONFINED}={}", std::process::id()).into());
    arguments.insert(2, format!("--{PASS}={}", secret.file.as_raw_fd()).into());
    arguments.splice(2..2, more.iter().map(Into::into));
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).env(terminal::WIDTH_VARIABLE, terminal::width().to_string());
    command.stdin(its_end).stdout(outputs[0]()).stderr(outputs[1]());
    let child = heir(&mut command, [Some(&secret.file), outbox])
        .context("the process that runs the machine cannot be started (--in-process does without)")?;
    Ok((child, notes, secret))
}

/// Starts a process that inherits these files, which no other does: several are started at once.
fn heir(command: &mut Command, files: [Option<&File>; 2]) -> io::Result<Child> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let turn = ONE_AT_A_TIME.lock();
    let inherited = |flags| files.iter().flatten().try_for_each(|file| rustix::io::fcntl_setfd(file, flags));
    inherited(FdFlags::empty())?;
    let child = command.spawn();
    inherited(FdFlags::CLOEXEC)?;
    drop(turn);
    child
}

/// What the last word of the process that runs a machine needs, and gets only when it has said that no driver code runs any more.
struct Secret {
    file: File,
    number: u64,
    granted: bool,
}

impl Secret {
    fn new() -> io::Result<Self> {
        let file = pass::file()?;
        let mut bytes = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self { file, number: u64::from_ne_bytes(bytes), granted: false })
    }

    /// The process has said this so far.
    fn hears(&mut self, said: &str) {
        let over = |line: &str| line.starts_with(OVER) && line.ends_with('\n');
        if !self.granted && said.split_inclusive('\n').any(over) {
            // Without it, the process counts as one that has not ended well.
            self.granted = pass::grant(&self.file, self.number).is_ok();
        }
    }
}

const NOT_ENDED: &str = "the process that runs the machine cannot be ended";
const NOT_WAITED: &str = "the process that runs the machine cannot be waited for";

/// Prints what the process prints, if that comes here, to its end.
fn end(
    (mut child, notes, mut secret): (Child, PipeReader, Secret),
    limit: Option<Duration>,
) -> Result<Ended> {
    let mut said = Vec::new();
    let mut pass_on = |pipe: Pipe, bytes: &[u8]| {
        pipe.pass_on(bytes, &mut said);
        if pipe == Pipe::Notes {
            secret.hears(&String::from_utf8_lossy(&said));
        }
        false
    };
    let hung = relay(&mut child, &notes, limit, None, &mut pass_on) == Closed::Hung;
    if hung {
        child.kill().context(NOT_ENDED)?;
        relay(&mut child, &notes, None, None, &mut pass_on);
    }
    let status = child.wait().context(NOT_WAITED)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok(Ended { said, status, hung_for: limit.filter(|_| hung), number: secret.number })
}

/// Why nothing more is read from a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// It has closed all its pipes.
    ByItself,
    /// It has not, and has said nothing about itself for so long.
    Hung,
    /// There is enough.
    Stopped,
}

/// How often is looked whether there is enough.
const LOOK: Duration = Duration::from_millis(20);

/// Gives to `take` what the process prints and says about itself, until it says that there is enough, or `stop` does.
fn relay(
    child: &mut Child,
    notes: &PipeReader,
    limit: Option<Duration>,
    stop: Option<&AtomicBool>,
    take: &mut dyn FnMut(Pipe, &[u8]) -> bool,
) -> Closed {
    let mut began = Clock::now();
    let mut open: Vec<(Pipe, BorrowedFd<'_>)> = vec![(Pipe::Notes, notes.as_fd())];
    open.extend(child.stdout.as_ref().map(|pipe| (Pipe::Out, pipe.as_fd())));
    open.extend(child.stderr.as_ref().map(|pipe| (Pipe::Err, pipe.as_fd())));
    let mut buffer = vec![0; 1 << 16];
    let mut enough = false;
    while !open.is_empty() {
        let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Closed::Hung;
        }
        if enough || stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Closed::Stopped;
        }
        let wait = left.into_iter().chain(stop.map(|_| LOOK)).min();
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut polled: Vec<_> = open.iter().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)).collect();
        // Interrupted, it has seen nothing yet.
        let _ = poll(&mut polled, wait.as_ref());
        let ready: Vec<bool> = polled.iter().map(|pipe| !pipe.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        open.retain(|(pipe, file)| {
            !ready.next().unwrap_or(false) || {
                let length = rustix::io::read(file, &mut buffer[..]).unwrap_or(0);
                enough |= take(*pipe, &buffer[..length]);
                if *pipe == Pipe::Notes {
                    began = Clock::now();
                }
                length > 0
            }
        });
    }
    Closed::ByItself
}

/// What comes from the process that runs the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pipe {
    Out,
    Err,
    Notes,
}

impl Pipe {
    fn pass_on(self, bytes: &[u8], said: &mut Vec<u8>) {
        match self {
            Self::Out => out::bytes(bytes),
            Self::Err => out::errors(bytes),
            Self::Notes => said.extend_from_slice(bytes),
        }
    }
}

/// What is known of a process that ran a machine.
struct Ended {
    /// What it said about itself.
    said: String,
    status: ExitStatus,
    hung_for: Option<Duration>,
    /// What stands in its last word.
    number: u64,
}

impl Ended {
    /// The exit code; none where the process did not end as it should.
    fn code(&self) -> Option<u8> {
        let mut lines = self.said.lines().rev();
        let (number, code) = lines.next()?.strip_prefix(END)?.split_once(' ')?;
        let code: u8 = code.parse().ok()?;
        // The line before its last is from the time when it got the number.
        let is_told = lines.find_map(|line| line.strip_prefix(OVER)) == Some(&code.to_string());
        let is_its_own = u64::from_str_radix(number, 16) == Ok(self.number);
        if !is_told || !is_its_own {
            return None;
        }
        (self.hung_for.is_none() && self.status.code() == Some(code.into())).then_some(code)
    }

    /// How the process died, if it did not end as it should.
    fn death(&self) -> Option<Death> {
        self.code().is_none().then(|| self.how())
    }

    /// How it died.
    fn how(&self) -> Death {
        let is_word = |line: &&str| ![END, OVER, LAST, DONE].iter().any(|word| line.starts_with(word));
        let words: Vec<&str> = self.said.lines().filter(is_word).collect();
        Death::of(&words, self.status, self.hung_for)
    }

    /// What it has come to, by what it said.
    fn done(&self) -> Done {
        let next = self.said.lines().find_map(|line| {
            let after = |which: usize| Some((line.strip_prefix(NEXT[which])?.to_owned(), which == 0));
            after(0).or_else(|| after(1)).map(|(what, stands)| Next { what, stands })
        });
        let last = self.said.lines().find_map(|line| line.strip_prefix(LAST)).map(str::to_owned);
        Done { next, last, ..Done::with(self.code().unwrap_or(NO_ANSWER)) }
    }
}
