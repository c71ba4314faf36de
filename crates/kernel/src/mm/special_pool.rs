//! Special pool: each block of a driver's on pages of its own, before or behind a page that is never there.
//!
//! Pages: *Special Pool*, *Detecting Overruns and Underruns*, *Bug Check 0xC1*, *Bug Check 0xCC*, *Bug Check 0xCD*, *Bug Check 0xD5*,
//! *Bug Check 0xD6*. An access beyond a block, or in one that is freed, is caught at the access, with no test of each access before
//! it; within the block's page, when it is freed, by the bytes around it. Blocks of a page and less lie so; longer ones end before a page that
//! is not there in any case. Where the host has no room for more, blocks lie in ordinary pool, as on Windows. Sizes are not asked for.

use std::fmt;
use std::str::FromStr;

use engine::Fill;
use engine::windows::PAGE;

use super::pool::{Allocator, Block, Request};
use super::pool_check::describe;
use super::{accessed, dense};
use crate::cx::{Cx, Kernel};
use crate::ldr;
use crate::verdict::Verdict;
use crate::verifier::{Verifier, VerifierOption};

/// Which end of a block lies at the end of a page.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Side {
    /// *Verify End*: its last bytes are those of its page.
    #[default]
    End,
    /// *Verify Start*: it begins with its page.
    Start,
}

/// What a request says of special pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Special {
    /// It lies there if the machine is set so.
    AsSet,
    /// It lies there (`POOL_FLAG_SPECIAL_POOL`).
    Wanted,
    /// As [`Special::AsSet`], though it is the kernel's own: a packet that a driver asked for.
    OwnAsSet,
}

/// The word for [`Side::Start`]: longer than a tag.
const START: &str = "start";

/// Which drivers' blocks lie in special pool; by default none.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SpecialPool {
    on: bool,
    side: Side,
    /// Patterns of tags, with `?` and `*`; none: all blocks.
    tags: Vec<String>,
}

impl SpecialPool {
    /// All blocks of drivers'.
    #[must_use]
    pub const fn all(side: Side) -> Self {
        Self { on: true, side, tags: Vec::new() }
    }

    /// As it was asked for, or as Driver Verifier has it.
    pub(super) fn with(&self, verifier: Verifier) -> Self {
        if !self.on && verifier.has(VerifierOption::SpecialPool) {
            Self::all(Side::End)
        } else {
            self.clone()
        }
    }

    /// Whether a block with this tag lies there.
    fn takes(&self, tag: u32) -> bool {
        self.on && (self.tags.is_empty() || self.tags.iter().any(|pattern| is_tag_like(tag, pattern)))
    }
}

/// Whether a tag is as `pattern` says: `?` is any character, `*` any number of them.
pub(super) fn is_tag_like(tag: u32, pattern: &str) -> bool {
    // A tag of fewer characters is filled up with spaces or zeroes.
    let bytes = tag.to_le_bytes();
    let length = bytes.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    is_like(&bytes[..length], pattern.as_bytes())
}

/// Whether `text` is as `pattern` says: `?` is any character, `*` any number of them.
fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    match (text, pattern) {
        (_, [b'*', rest @ ..]) => (0..=text.len()).any(|skipped| is_like(&text[skipped..], rest)),
        ([_, text @ ..], [b'?', rest @ ..]) => is_like(text, rest),
        ([byte, text @ ..], [same, rest @ ..]) => byte == same && is_like(text, rest),
        (text, []) => text.is_empty(),
        ([], _) => false,
    }
}

/// As [`FromStr`] reads it; nothing for none.
impl fmt::Display for SpecialPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = (self.side == Side::Start).then_some(START);
        let words: Vec<&str> = start.into_iter().chain(self.tags.iter().map(String::as_str)).collect();
        match (self.on, words.is_empty()) {
            (false, _) => Ok(()),
            (true, true) => f.write_str("all"),
            (true, false) => f.write_str(&words.join(",")),
        }
    }
}

impl FromStr for SpecialPool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "none" => return Ok(Self::default()),
            "all" => return Ok(Self::all(Side::End)),
            _ => {}
        }
        let mut special = Self::all(Side::End);
        for word in text.split(',') {
            match word {
                START => special.side = Side::Start,
                _ if (1..=4).contains(&word.len()) && word.is_ascii() => special.tags.push(word.to_owned()),
                _ => {
                    return Err(format!(
                        "`{word}` is no pool tag: write up to four characters (`?` and `*` stand for any), or `{START}` for \
                         blocks that begin with their page"
                    ));
                }
            }
        }
        Ok(special)
    }
}

/// Where the block that is asked for lies in its pages, if it is to lie in special pool and there is room.
pub(super) fn side_of(k: &Kernel, request: &Request, allocator: Allocator) -> Option<Side> {
    let special = &k.mm.special_pool;
    let wanted = match request.special {
        Special::OwnAsSet => special.takes(request.tag),
        Special::Wanted => allocator.is_driver(),
        Special::AsSet => allocator.is_driver() && special.takes(request.tag),
    };
    (wanted && !k.mm.physical.memory.is_crowded()).then(|| request.side.unwrap_or(special.side))
}

/// Whether blocks with this tag that an image allocates lie there: a list that keeps freed ones must not, then.
pub(crate) fn takes(k: &Kernel, owner: Option<u64>, tag: u32) -> bool {
    owner.is_some() && k.mm.special_pool.takes(tag)
}

/// A page for a block of a page or less, with the block's bytes filled and guards around them; where it begins.
pub(super) fn take(k: &mut Kernel, block: &Block, side: Side, (fill, guard): (Fill, u8)) -> Option<u64> {
    let page = dense::allocate_apart(k, block.kind.zone(), block.kind.page())?;
    k.engine.fill(page, PAGE, guard).expect("the page is there now");
    let address = match side {
        Side::Start => page,
        Side::End => page + PAGE - block.aligned_room(),
    };
    k.engine.fill(address, block.bytes, fill).expect("as above");
    Some(address)
}

/// Whether driver code or the kernel, where a driver pointed it to, has touched what is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// The driver's instruction at this address.
    Driver(u64),
    /// The kernel.
    Kernel,
}

/// The verdict on an access to where nothing is, if it was meant for a block of special pool.
pub(crate) fn accused(cx: &mut Cx<'_>, address: u64, write: bool, by: By) -> Option<Verdict> {
    let (start, block) = cx.with(|k| nearest(k, address))?;
    let verb = if write { "wrote to" } else { "read" };
    let (did, rip) = match by {
        By::Driver(rip) => (format!("{} {verb} {address:#x}", ldr::symbols::describe(cx, rip)), rip),
        By::Kernel => (format!("the driver passed {address:#x} to the kernel, which {verb} it"), 0),
    };
    let place = match address.checked_sub(start) {
        None => format!("{} bytes before", start - address),
        Some(into) if into < block.bytes => format!("{into:#x} bytes into"),
        Some(into) => format!("{} bytes behind the end of", into - block.bytes),
    };
    let what = describe(start, &block);
    let allocator = ldr::symbols::describe_return(cx, block.allocator.caller);
    let freed = if block.is_freed() { ", which is freed" } else { "" };
    let message = format!("{did}: {place} {what}{freed}, allocated by {allocator}");
    // The page behind a block is marked as the one before it is.
    let (rule, codes) = match (block.is_freed(), address < start) {
        (true, _) => ("use-after-free", (0xD5, 0xCC)),
        (false, true) => ("pool-underrun", (0xD6, 0xCD)),
        (false, false) => ("pool-overrun", (0xD6, 0xCD)),
    };
    let code = if by == By::Kernel { codes.1 } else { codes.0 };
    let is_outside = !(start..start + block.bytes).contains(&address);
    let accessed = (by != By::Kernel).then(|| accessed::of_block(cx, &block, is_outside, rip));
    let verdict = Verdict::error(rule, message).bug_check(code, [address, write.into(), rip, 0]);
    Some(Verdict { accessed, ..verdict.of_block(&block) })
}

/// The block of special pool, freed or not, that the page of `address` is one of or next to; of two the one whose bytes are nearer.
fn nearest(k: &Kernel, address: u64) -> Option<(u64, Block)> {
    if k.mm.map.page(address).is_some() {
        return None;
    }
    let near = k.mm.pool.unordered().filter(|(start, block)| {
        let pages = block.extent(*start);
        block.special.is_some() && (pages.start - PAGE..pages.end + PAGE).contains(&address)
    });
    let distance = |start: u64, block: &Block| {
        start.saturating_sub(address).max(address.saturating_sub(start + block.bytes.saturating_sub(1)))
    };
    near.min_by_key(|(start, block)| (distance(*start, block), *start)).map(|(start, block)| (start, *block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::pool::{tag, tag_text};

    #[test]
    fn tags_are_chosen_as_gflags_does_and_written_as_they_are_read() {
        let special: SpecialPool = "Fat*,Av?4,start".parse().unwrap();
        for (text, takes) in [(b"Fat1", true), (b"Fat ", true), (b"Avx4", true), (b"Avx5", false)] {
            assert_eq!(special.takes(tag(text)), takes, "{}", tag_text(tag(text)));
        }
        assert_eq!(special.to_string(), "start,Fat*,Av?4");
        assert_eq!(special.to_string().parse(), Ok(special));
        let all: SpecialPool = "all".parse().unwrap();
        assert!(all.takes(tag(b"Any1")) && all.to_string() == "all");
        let none: SpecialPool = "none".parse().unwrap();
        assert!(!none.takes(tag(b"Any1")) && none.to_string().is_empty());
        assert!("Longer".parse::<SpecialPool>().unwrap_err().contains("`Longer`"));
        let verifier = Verifier::NONE.with(VerifierOption::SpecialPool);
        assert_eq!(none.with(verifier), all);
        assert_eq!(none.with(Verifier::NONE.with(VerifierOption::Io)), none);
    }
}
