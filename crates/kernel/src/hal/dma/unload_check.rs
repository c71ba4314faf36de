//! What is left of DMA: when an adapter is released, and when its driver is gone.
//!
//! Pages: *DMA Verification*, *Bug Check 0xE6: DRIVER_VERIFIER_DMA_VIOLATION* (7 to Ah).

use engine::Flow;

use super::{By, DMA_VIOLATION};
use crate::cx::Cx;
use crate::verdict::Verdict;

/// What came by an adapter, and who asked for it.
struct Left {
    rule: &'static str,
    code: u64,
    what: &'static str,
    by: Vec<By>,
}

/// An adapter is about to be released.
///
/// # Errors
/// With Driver Verifier's option, a verdict if anything is left.
pub(super) fn at_release(cx: &mut Cx<'_>, at: u64) -> Flow<()> {
    let all = cx.with(|k| {
        let dma = &k.hal.dma;
        let buffers = dma.buffers.values().filter(|buffer| buffer.adapter == at).map(|buffer| buffer.by);
        let channel = dma.channel(at).and_then(|channel| channel.held_by(at));
        let registers = dma.registers.values().filter_map(|known| known.left_of(at));
        let lists = dma.lists.values().filter_map(|list| list.left_of(at));
        [
            Left { rule: "common-buffer-leak", code: 0x7, what: "common buffer(s)", by: buffers.collect() },
            Left {
                rule: "dma-channel-leak",
                code: 0x8,
                what: "adapter channel",
                by: channel.into_iter().collect(),
            },
            Left {
                rule: "dma-map-registers-leak",
                code: 0x9,
                what: "allocation(s) of map registers",
                by: registers.collect(),
            },
            Left {
                rule: "scatter-gather-list-leak",
                code: 0xA,
                what: "scatter/gather list(s)",
                by: lists.collect(),
            },
        ]
    });
    for Left { rule, code, what, by } in all {
        let Some(first) = by.first() else { continue };
        let count = by.len();
        let who = first.name(cx);
        let message = format!(
            "PutDmaAdapter was called for the DMA adapter {at:#x} with {count} {what} left, which {who} has asked for"
        );
        let verdict = Verdict::verifier(rule, message).related("allocated", first.moment);
        cx.verify(verdict.bug_check(DMA_VIOLATION, [code, at, count as u64, 0]))?;
    }
    Ok(())
}

/// Adapters that the image at `driver` has not released, and common buffers that it has not freed: rule, things, what, and who.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(&'static str, &'static str, String, String)> {
    let found: Vec<(&'static str, &'static str, String, By)> = cx.with(|k| {
        let dma = &k.hal.dma;
        let is_own = |by: &By| by.owner == Some(driver);
        let adapters =
            dma.adapters.iter().filter(|(_, adapter)| !adapter.is_obsolete && adapter.released.is_none());
        let adapters = adapters.filter(|(_, adapter)| is_own(&adapter.by)).map(|(at, adapter)| {
            (
                "dma-adapter-leak",
                "DMA adapters",
                format!("did not release its DMA adapter {at:#x}"),
                adapter.by,
            )
        });
        let buffers = dma.buffers.iter().filter(|(_, buffer)| is_own(&buffer.by)).map(|((at, _), buffer)| {
            let what = format!("did not free a common buffer of {:#x} bytes at {at:#x}", buffer.bytes);
            ("common-buffer-leak", "common buffers", what, buffer.by)
        });
        adapters.chain(buffers).collect()
    });
    let tell = |(rule, things, what, by): (_, _, _, By)| (rule, things, what, by.name(cx));
    found.into_iter().map(tell).collect()
}
