//! Small machines whose searches end within seconds, and whose outcomes are known: searches of them in several ways agree, those of the library
//! (`outcomes.rs`) and those of the command (`agreeing.rs`). Each has schedules that end differently, so that a search which loses some is seen.
//!
//! *Derived* numbers of outcomes follow from the driver's source, as the comment says; the others are what was found in each way.
#![allow(dead_code, reason = "each test program uses its part of it")]

use std::path::{Path, PathBuf};

use super::lost_update;

/// A machine, what is asked of it, and how far it is searched.
pub(crate) struct SmallMachine {
    /// As the table of `docs/exploration.md` calls it.
    pub(crate) name: &'static str,
    /// What happens at once, for that table.
    pub(crate) story: &'static str,
    pub(crate) driver: &'static str,
    pub(crate) inf: Option<&'static str>,
    pub(crate) card: Option<&'static str>,
    pub(crate) platform: Option<&'static str>,
    pub(crate) processors: u32,
    pub(crate) checked: bool,
    pub(crate) preemptions: usize,
    /// An expectation in it tells outcomes apart: what was seen instead is part of the outcome.
    pub(crate) script: &'static str,
    /// How many outcomes its schedules have.
    pub(crate) outcomes: usize,
    /// How many of them have a schedule in which no thread gives way before a plain instruction.
    pub(crate) visible: usize,
}

/// With no card, on two processors, searched with one preemption.
pub(crate) const PLAIN: SmallMachine = SmallMachine {
    name: "",
    story: "",
    driver: "",
    inf: None,
    card: None,
    platform: None,
    processors: 2,
    checked: false,
    preemptions: 1,
    script: "",
    outcomes: 0,
    visible: 0,
};

pub(crate) const MACHINES: &[SmallMachine] = &[
    // Derived. Both load before one stores, or not: the count ends as 1 or 2. No visible instruction stands between load and store.
    SmallMachine {
        name: "two_increments",
        story: "two threads add to a counter, `lost_update.sys`",
        driver: "lost_update.sys",
        script: lost_update::QUIET,
        outcomes: 2,
        visible: 1,
        ..PLAIN
    },
    // Derived. One preemption has one increment begin with a load and end with a store, and none, one or both of the others between: as
    // many are lost. An interlocked instruction stands between load and store, so each of these departs before a visible one.
    SmallMachine {
        name: "three_increments",
        story: "two threads and a DPC add to a counter, `lost_update.sys`",
        driver: "lost_update.sys",
        script: lost_update::UNLOCKED,
        outcomes: 3,
        visible: 3,
        ..PLAIN
    },
    // Derived. Both bits are set, or either store takes back what the other one has set between its load and store.
    SmallMachine {
        name: "two_bits",
        story: "two threads set a bit each of one byte, `lost_update.sys`",
        driver: "lost_update.sys",
        script: lost_update::BITS,
        outcomes: 3,
        visible: 1,
        ..PLAIN
    },
    // Derived. As `two_increments`.
    SmallMachine {
        name: "thread_and_dpc",
        story: "a thread and a DPC add to a counter, `lost_update.sys`",
        driver: "lost_update.sys",
        script: lost_update::QUIET_DPC,
        outcomes: 2,
        visible: 1,
        ..PLAIN
    },
    // Derived. As `two_increments`; the DPC is queued to another processor, and what it reaches is the thread's stack.
    SmallMachine {
        name: "local_variable",
        story: "a thread and a DPC add to a variable on the thread's stack, `lost_local.sys`",
        driver: "lost_local.sys",
        preemptions: 3,
        script: r"open \\.\DirqlLostLocal as a; ioctl a 0x222000 out 4 expect u32:0",
        outcomes: 2,
        visible: 1,
        ..PLAIN
    },
    // Derived. What looks without the lock sees as many attempts as increments, one attempt more (between the two), or one increment more
    // (its own loads stand on both sides of all that is done under the lock).
    SmallMachine {
        name: "spin_lock",
        story: "a thread adds under a spin lock, another one looks without, `lost_update.sys`",
        driver: "lost_update.sys",
        script: r"open \\.\DirqlLostUpdate as a
open \\.\DirqlLostUpdate as b
t: ioctl a 0x222010
u: ioctl b 0x222008 out 4 expect u32:0
join t; join u",
        outcomes: 3,
        visible: 1,
        ..PLAIN
    },
    // Derived. An increment is lost, or none, and the driver breaks Driver Verifier's rule if one is.
    SmallMachine {
        name: "finding",
        story: "two threads add; if one is lost, Driver Verifier has a finding, `lost_update.sys`",
        driver: "lost_update.sys",
        script: lost_update::DIFFERING,
        outcomes: 2,
        visible: 2,
        ..PLAIN
    },
    // Derived. The length and the address are of one name or of two.
    SmallMachine {
        name: "torn_name",
        story: "a thread has the kernel store a name that another one reads in two pieces, `meetings.sys`",
        driver: "meetings.sys",
        script: r"open \\.\DirqlMeetings as a
open \\.\DirqlMeetings as b
t: ioctl a 0x222014
u: ioctl b 0x222018
join t; join u
ioctl a 0x22201c out 4 expect u32:0",
        outcomes: 2,
        visible: 1,
        ..PLAIN
    },
    // Derived. The block that is read is there, or was freed since its address was read; its place is not used again by then.
    SmallMachine {
        name: "use_after_free",
        story: "a thread reads a block that another one replaces, checked, `meetings.sys`",
        driver: "meetings.sys",
        checked: true,
        script: r"open \\.\DirqlMeetings as a
open \\.\DirqlMeetings as b
t: ioctl a 0x222024
u: ioctl b 0x222020
join t; join u",
        outcomes: 2,
        visible: 1,
        ..PLAIN
    },
    // Derived. The length that the application changes is the small one twice, the large one twice (refused), or one of each (too much is copied).
    SmallMachine {
        name: "double_fetch",
        story: "an application changes a length that the driver reads twice, checked, `fetch.sys`",
        driver: "fetch.sys",
        checked: true,
        script: r"open \\.\DirqlFetch as f
memory m u32:8 + zero:60
t: ioctl f 0x222003 in memory m expect any
u: store m u32:60
join t; join u",
        outcomes: 3,
        visible: 2,
        ..PLAIN
    },
    // Derived. All of the other request comes between load and store, its increment and that of its interrupt, or nothing. (On two processors either
    // can be lost alone, and the schedules are ten times as many.)
    SmallMachine {
        name: "interrupt_routine",
        story: "two threads and an interrupt routine add to a counter, one processor, `pciline_lost.sys`",
        driver: "pciline_lost.sys",
        inf: Some("pciline.inf"),
        card: Some("pci9052"),
        processors: 1,
        script: r"open \\.\PciLine0 as a overlapped
open \\.\PciLine0 as b overlapped
t: write a text:aaaa at 0
u: write b text:bbbb at 8
join t; join u
ioctl a 0x226404 out 16 expect prefix u32:2 + u32:4",
        outcomes: 2,
        visible: 1,
        ..PLAIN
    },
    // Derived. The write is done, or it was cancelled while it waited; one that is done was found by the cancelling thread, or not yet.
    SmallMachine {
        name: "cancel_race",
        story: "a thread cancels a write while the card does it, `pciline.sys`",
        driver: "pciline.sys",
        inf: Some("pciline.inf"),
        card: Some("pci9052"),
        script: r"open \\.\PciLine0 as a overlapped
t: cancel a
async w write a hex:01 at 0
join t; join w expect any; close a",
        outcomes: 3,
        visible: 3,
        ..PLAIN
    },
    // Derived. The write is cancelled or done, and the driver prints which. One that is done before the thread asks is not found.
    SmallMachine {
        name: "cancel_queued",
        story: "a thread cancels a write that waits for a timer, `queue.sys`",
        driver: "queue.sys",
        script: r"open \\.\DirqlQueue as q overlapped
t: cancel q
async w write q hex:01
join t; join w expect any; close q",
        outcomes: 3,
        visible: 3,
        ..PLAIN
    },
    // Derived. The card does what it was asked, or it is gone when the driver asks.
    SmallMachine {
        name: "surprise_removal",
        story: "a card is pulled out during a write, one processor, `pciline.sys`",
        driver: "pciline.sys",
        inf: Some("pciline.inf"),
        card: Some("pci9052"),
        processors: 1,
        script: r"open \\.\PciLine0 as a
t: write a hex:01 at 0 expect any
surprise-remove
join t; close a",
        outcomes: 2,
        visible: 2,
        ..PLAIN
    },
    // Derived. The service routine comes before or behind the store of what it is to find. Nothing visible stands between the access that has the
    // card interrupt and that store.
    SmallMachine {
        name: "early_interrupt",
        story: "a thread has its card interrupt, and then says what for, one processor, `early.sys`",
        driver: "early.sys",
        inf: Some("posted.inf"),
        card: Some("bench,pin=a,delay=10us"),
        processors: 1,
        script: r"open \\.\DirqlEarly as f
ioctl f 0x223880 in u32:0 out 4 expect u32:1
close f",
        outcomes: 2,
        visible: 1,
        ..PLAIN
    },
    // Derived. The same, of a timer's DPC.
    SmallMachine {
        name: "early_timer",
        story: "a thread sets a timer, and then says what for, one processor, `early.sys`",
        driver: "early.sys",
        inf: Some("posted.inf"),
        card: Some("bench,pin=a"),
        processors: 1,
        script: r"open \\.\DirqlEarly as f
ioctl f 0x223888 in u32:0 out 4 expect u32:1
close f",
        outcomes: 2,
        visible: 1,
        ..PLAIN
    },
    // Derived. One preemption has the tick come between the thread's load and its store, and takes what the DPC has added; that leaves 2 of 3, on
    // however many processors. With two the tick is taken by the other processor (one), whose DPC stops between its own load and store (two) while
    // the thread adds: that is lost, and leaves 1, which no machine of one processor comes to. No visible instruction stands between load and store.
    SmallMachine {
        name: "tick_elsewhere",
        story: "a thread and a timer's DPC, which another processor may run, add to a counter, `ticks.sys`",
        driver: "ticks.sys",
        inf: Some("posted.inf"),
        card: Some("bench,pin=a"),
        preemptions: 2,
        script: r"open \\.\DirqlTicks as f
ioctl f 0x2238a0 out 4 expect u32:3
close f",
        outcomes: 3,
        visible: 1,
        ..PLAIN
    },
    // Derived. The same, of an interrupt routine.
    SmallMachine {
        name: "interrupt_elsewhere",
        story: "a thread and an interrupt routine, which another processor may run, add to a counter, `ticks.sys`",
        driver: "ticks.sys",
        inf: Some("posted.inf"),
        card: Some("bench,pin=a,delay=10us"),
        preemptions: 2,
        script: r"open \\.\DirqlTicks as f
ioctl f 0x2238a4 out 4 expect u32:3
close f",
        outcomes: 3,
        visible: 1,
        ..PLAIN
    },
    // Derived. The command that is on its way has reached the card when the driver looks, or not.
    SmallMachine {
        name: "posted_write",
        story: "a bridge delays a write that the driver does not wait for, `posted.sys`",
        driver: "posted.sys",
        inf: Some("posted.inf"),
        card: Some("bench,pin=a"),
        platform: Some("posted=2us"),
        preemptions: 1,
        script: r"open \\.\DirqlPosted as f
ioctl f 0x223844 in u32:0 out 8 expect u64:0
close f",
        outcomes: 2,
        visible: 2,
        ..PLAIN
    },
    // Derived. The one that comes first does not see the other's flag, and the later one does, or none sees any: where the first is stopped behind its load, its store
    // is not seen yet. Where both see both, each is stopped behind its store until that is seen, which takes more preemptions.
    SmallMachine {
        name: "late_flags",
        story: "two threads raise a flag each and look at the other's, stores are seen late, `meetings.sys`",
        driver: "meetings.sys",
        platform: Some("late-stores"),
        script: r"open \\.\DirqlMeetings as a
open \\.\DirqlMeetings as b
t: ioctl a 0x222028
u: ioctl b 0x22202c
join t; join u
ioctl a 0x222038 out 4 expect u32:0",
        outcomes: 3,
        visible: 3,
        ..PLAIN
    },
    // Derived. Behind a barrier stores are seen: one sees the other's flag, or both do.
    SmallMachine {
        name: "firm_flags",
        story: "the same with a memory barrier between, `meetings.sys`",
        driver: "meetings.sys",
        platform: Some("late-stores"),
        script: r"open \\.\DirqlMeetings as a
open \\.\DirqlMeetings as b
t: ioctl a 0x222030
u: ioctl b 0x222034
join t; join u
ioctl a 0x222038 out 4 expect u32:0",
        outcomes: 3,
        visible: 2,
        ..PLAIN
    },
    // Derived. What takes comes before both stores, between them or, of its own loads, around them, or behind both: stores are late, but in their order, so it
    // never finds that the value is there, and not the value.
    SmallMachine {
        name: "published_late",
        story: "a thread stores a value and then that it is there, another one takes it, stores are seen late, `meetings.sys`",
        driver: "meetings.sys",
        platform: Some("late-stores"),
        script: r"open \\.\DirqlMeetings as a
open \\.\DirqlMeetings as b
t: ioctl a 0x22203c
u: ioctl b 0x222040
join t; join u
ioctl a 0x222038 out 4 expect u32:0",
        outcomes: 3,
        visible: 2,
        ..PLAIN
    },
];

/// Gives the name of each of [`MACHINES`] to a macro, which makes its tests; [`NAMES`] has them, too.
macro_rules! each_machine {
    ($tests:ident) => {
        $tests! {
            two_increments
            three_increments
            two_bits
            thread_and_dpc
            local_variable
            spin_lock
            finding
            torn_name
            use_after_free
            double_fetch
            interrupt_routine
            cancel_race
            cancel_queued
            surprise_removal
            early_interrupt
            early_timer
            tick_elsewhere
            interrupt_elsewhere
            posted_write
            late_flags
            firm_flags
            published_late
        }
    };
}
#[allow(unused_imports, reason = "only some test programs have a test for each machine")]
pub(crate) use each_machine;

macro_rules! names {
    ($($name:ident)*) => {
        /// The machines that have tests.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}
each_machine! { names }

impl SmallMachine {
    /// The one of this name.
    pub(crate) fn named(name: &str) -> &'static Self {
        MACHINES.iter().find(|machine| machine.name == name).expect("it is in the table")
    }

    /// The INF file that installs it, if it is installed: that of `drivers`, or a copy in `folder` that names this driver.
    pub(crate) fn inf(&self, drivers: &Path, folder: impl FnOnce() -> PathBuf) -> Option<PathBuf> {
        let inf = self.inf?;
        let (usual, own) = (format!("{}.sys", inf.trim_end_matches(".inf")), drivers.join(inf));
        if usual == self.driver {
            return Some(own);
        }
        let changed = folder().join(inf);
        let text = std::fs::read_to_string(own).expect("the INF is built");
        std::fs::write(&changed, text.replace(&usual, self.driver)).expect("the folder can be written");
        Some(changed)
    }
}
