//! Every decision of the machine that could have gone otherwise is a question to one [`Chooser`].
//!
//! Answer 0 is the default. A record of a run holds only the answers that are not, keyed by (strand, point,
//! occurrence). Policies live in other crates; here is only the one that always answers 0.

/// Where a decision is taken: a name that stays the same between versions, e.g. `ke.turn`.
///
/// A point whose name begins with `fault.` asks whether something fails that could succeed (answer 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Point(pub &'static str);

/// Where the end of a slice asks whether its strand gives way.
pub const SLICE_END: Point = Point("ke.slice");

/// Where a strand is asked before an instruction that touches memory which others touch too.
pub const SHARED: Point = Point("ke.before_shared");

/// Where the strand in which a processor's DPC queue is emptied is asked before each DPC whether others go first.
pub const BEFORE_DPC: Point = Point("ke.before_dpc");

/// Where a strand is asked whether it is held up until what is due next has come: by [`Chooser::delays`] at its instructions, and by
/// [`Chooser::choose`] before its application asks for something.
pub const DELAY: Point = Point("ke.delay");

/// Where it is asked which processor takes an interrupt or a tick that has come, the one that runs or another: by [`Chooser::next_strand`] behind a delay, and by
/// [`Chooser::choose`] where a strand is interrupted else.
pub const TAKER: Point = Point("ke.taker");

/// Where a strand could be held up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Delay {
    /// How many driver instructions of its own the strand has retired.
    pub retired: u64,
    /// What it stands at.
    pub place: DelayPlace,
}

/// Why a strand is asked just there whether it is held up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DelayPlace {
    /// It calls an export, and will return to this address.
    Call(u64),
    /// The instruction at this address does what others can see.
    Visible(u64),
    /// The instruction at this address is [watched](Chooser::watches).
    Watched(u64),
    /// A [slice](Chooser::slice) ends.
    SliceEnd,
}

/// Answers the machine's questions. It lives outside the machine and is not rewound with it.
pub trait Chooser {
    /// One of `0..n` (`n` ≥ 1), asked by `strand` at `point`.
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32;

    /// How many more driver instructions of its own `strand` retires before it is asked at [`SLICE_END`] whether it gives
    /// way; at least 1, `u64::MAX` for never. It has retired `retired` of them so far.
    fn slice(&mut self, strand: u32, retired: u64) -> u64;

    /// The driver is loaded and its devices are started, as far as that goes: what a script asks for comes next. Whether it is to be asked anew how
    /// long [slices](Chooser::slice) are: those of strands that it was asked about before do not end else as it says now.
    fn script_begins(&mut self) -> bool {
        false
    }

    /// Whether it is to be asked before interlocked instructions too, which makes them slower and changes nothing else. A
    /// policy that always gives the default answer need not be.
    fn sees_interlocked(&self) -> bool {
        true
    }

    /// Whether every answer is the default. Such a chooser is not asked whether a strand gives way, or which goes on; what it says
    /// holds as long as it is the machine's chooser.
    fn is_default_only(&self) -> bool {
        false
    }

    /// Instructions, by address, before which it is to be asked too ([`Chooser::give_way_before`]): asked once, before the
    /// machine starts.
    fn watches(&self) -> Vec<u64> {
        Vec::new()
    }

    /// What has led to the next question, as one number, where the machine keeps its history ([`crate::Engine::keep_history`]): two runs of which it is
    /// equal go on alike if they are answered alike.
    fn comes_to(&mut self, state: u64) {
        let _ = state;
    }

    /// Which of `strands` goes on: an index. The first is the default.
    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        self.choose(strand, point, u32::try_from(strands.len()).unwrap_or(u32::MAX))
    }

    /// Whether `strand`, which could go on, lets one of `others` (not empty) go first; which of them is asked later.
    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        let _ = others;
        self.choose(strand, point, 2) == 1
    }

    /// As [`Chooser::give_way`], before the `instruction` at this address, which is watched; `strand` has retired `retired`
    /// driver instructions of its own.
    fn give_way_before(&mut self, strand: u32, retired: u64, instruction: u64, others: &[u32]) -> bool {
        let _ = (retired, instruction);
        self.give_way(strand, SHARED, others)
    }

    /// Whether `strand` is held up until what is due next, of the hardware or of drivers' timers, has come.
    fn delays(&mut self, strand: u32, at: Delay) -> bool {
        let _ = at;
        self.choose(strand, DELAY, 2) == 1
    }
}

/// The answer to any [`Question`] that leaves it to the machine's own chooser.
pub const TO_THE_CHOOSER: u64 = u64::MAX - 1;

/// What a machine that is [explored](crate::Host::explore) asks the host's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// As [`Chooser::choose`]: the answer is one of `0..n`.
    Choice {
        /// Who asks; 0 is the scheduler.
        strand: u32,
        /// Where.
        point: Point,
        /// How many answers there are, at least 1.
        n: u32,
    },
    /// As [`Chooser::next_strand`]: the answer is one of `0..n`.
    NextStrand {
        /// Who asks; 0 is the scheduler.
        strand: u32,
        /// Where.
        point: Point,
        /// How many strands could go on.
        n: u32,
    },
    /// As [`Chooser::give_way`]: the answer is 1 if it does, else 0.
    GiveWay {
        /// Who asks.
        strand: u32,
        /// Where.
        point: Point,
    },
    /// As [`Chooser::slice`]: the answer is a number of driver instructions, at least 1.
    Slice {
        /// Who asks.
        strand: u32,
        /// How many of its own it has retired.
        retired: u64,
    },
}

/// Always answers 0 and never preempts: run until blocked.
#[derive(Clone, Copy, Default, Debug)]
pub struct Defaults;

impl Chooser for Defaults {
    fn choose(&mut self, _strand: u32, _point: Point, _n: u32) -> u32 {
        0
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }

    fn sees_interlocked(&self) -> bool {
        false
    }

    fn is_default_only(&self) -> bool {
        true
    }
}
