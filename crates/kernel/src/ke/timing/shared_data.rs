//! `KUSER_SHARED_DATA` as drivers read it: time, ticks, version, processor features. Page: *KUSER_SHARED_DATA*.
//!
//! Every read is answered here; there is no such page. A driver that does nothing but poll it sees time pass.

use abi::KUSER_SHARED_DATA as Page;
use engine::{Cpu, Flow};

use super::{clock, time};
use crate::cx::{Cx, Kernel};
use crate::ke::calls::extended;
use crate::ke::history;
use crate::ke::irq::stall;
use crate::ke::sched::affinity;
use crate::nt::WindowsVersion;

/// Two polls belong to one loop if at most so many nanoseconds lie between.
const NEAR: u64 = 2_000;
/// What one read takes, in nanoseconds: twice as much after every so many polls in a row, up to about a millisecond, so
/// that waiting by polling gets anywhere, and overshoots by little.
const COST: u64 = 20;
const DOUBLED_AFTER: u32 = 64;
const DOUBLED_AT_MOST: u32 = 16;
/// `NX_SUPPORT_POLICY_ALWAYSON` in the low bits, as 64-bit Windows has for the kernel.
const MITIGATIONS: u8 = 0x0A;

/// The bytes at `offset`, as they are now. [`polled`] is the reader's to call when its instruction has retired.
pub(crate) fn bytes(cx: &mut Cx<'_>, offset: u64, length: u64) -> Vec<u8> {
    let uptimes = [Page::InterruptTime, Page::TickCount].map(|field| field.offset());
    let is_uptime = uptimes.into_iter().any(|field| (field..field + KSYSTEM_TIME).contains(&offset));
    let page = cx.with(|k| {
        clock::look(k);
        k.ke.timing.polling.of_uptime += u64::from(is_uptime);
        page(k)
    });
    let byte = |at: u64| usize::try_from(at).ok().and_then(|at| page.get(at)).copied().unwrap_or(0);
    (offset..offset.saturating_add(length)).map(byte).collect()
}

/// The driver looked at the clock: a loop that only does that sees time pass.
///
/// # Errors
/// [`engine::Leave`] of what interrupts meanwhile.
pub(crate) fn polled(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| history::reads_clock(k));
    let now = cx.engine().now();
    let reads = cx.with(|k| {
        let polling = &mut k.ke.timing.polling;
        polling.reads = if now - polling.last <= NEAR { polling.reads.saturating_add(1) } else { 0 };
        polling.reads
    });
    stall::pass(cx, now + (COST << (reads / DOUBLED_AFTER).min(DOUBLED_AT_MOST)))?;
    let now = cx.engine().now();
    cx.with(|k| k.ke.timing.polling.last = now);
    Ok(())
}

/// The versions as `RtlGetVersion` says them: major, minor, build.
#[must_use]
pub(crate) const fn version(windows: WindowsVersion) -> (u32, u32, u32) {
    match windows {
        WindowsVersion::Win7 => (6, 1, 7601),
        WindowsVersion::Win81 => (6, 3, 9600),
        WindowsVersion::Win10 => (10, 0, 19045),
        WindowsVersion::Win11 => (10, 0, 26100),
    }
}

/// Bytes of a `KSYSTEM_TIME`.
const KSYSTEM_TIME: u64 = 12;
/// Bytes of the page that mean anything here; the rest is zero.
const LAID_OUT: usize = 0x400;

/// A page under construction.
struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).expect("inside a page");
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A `KSYSTEM_TIME`: low part, high part twice.
    fn put_time(&mut self, offset: u64, time: u64) {
        self.put(offset, &time.to_le_bytes());
        self.put(offset + 8, &time.to_le_bytes()[4..]);
    }
}

fn page(k: &Kernel) -> Vec<u8> {
    let mut page = Writer(vec![0; LAID_OUT]);
    constants(&mut page, k);
    times(&mut page, k);
    page.0
}

fn times(page: &mut Writer, k: &Kernel) {
    let (shown, ticks) = (time::shown(k), time::ticks(k));
    page.put(Page::TickCountLowDeprecated.offset(), &ticks.to_le_bytes()[..4]);
    page.put_time(Page::InterruptTime.offset(), shown);
    page.put_time(Page::SystemTime.offset(), time::boot(k) + time::ticked(k));
    page.put_time(Page::TickCount.offset(), ticks);
}

fn constants(page: &mut Writer, k: &Kernel) {
    let (major, minor, build) = version(k.ke.windows);
    // Milliseconds a tick as a fixed-point number with 24 binary digits: 15.625.
    page.put(Page::TickCountMultiplier.offset(), &0x0FA0_0000_u32.to_le_bytes());
    // IMAGE_FILE_MACHINE_AMD64 on both ends.
    page.put(Page::ImageNumberLow.offset(), &0x8664_u16.to_le_bytes());
    page.put(Page::ImageNumberHigh.offset(), &0x8664_u16.to_le_bytes());
    let root: Vec<u8> = r"C:\Windows".encode_utf16().flat_map(u16::to_le_bytes).collect();
    page.put(Page::NtSystemRoot.offset(), &root);
    page.put(Page::LargePageMinimum.offset(), &0x20_0000_u32.to_le_bytes());
    page.put(Page::NtBuildNumber.offset(), &build.to_le_bytes());
    page.put(Page::NtProductType.offset(), &1_u32.to_le_bytes());
    page.put(Page::ProductTypeIsValid.offset(), &[1]);
    // PROCESSOR_ARCHITECTURE_AMD64.
    page.put(Page::NativeProcessorArchitecture.offset(), &9_u16.to_le_bytes());
    page.put(Page::NtMajorVersion.offset(), &major.to_le_bytes());
    page.put(Page::NtMinorVersion.offset(), &minor.to_le_bytes());
    let enabled = extended::by_xsave(k.ke.cpu);
    if enabled != 0 {
        page.put(Page::XState_EnabledFeatures.offset(), &enabled.to_le_bytes());
        page.put(Page::XState_EnabledVolatileFeatures.offset(), &enabled.to_le_bytes());
        page.put(Page::XState_Size.offset(), &0x340_u32.to_le_bytes());
    }
    for feature in features(k.ke.cpu) {
        page.put(Page::ProcessorFeatures.offset() + feature, &[1]);
    }
    page.put(Page::SuiteMask.offset(), &0x110_u32.to_le_bytes());
    page.put(Page::MitigationPolicies.offset(), &[MITIGATIONS]);
    page.put(Page::ActiveConsoleId.offset(), &1_u32.to_le_bytes());
    let pages = u32::try_from(k.engine.physical_memory() / 0x1000).unwrap_or(u32::MAX);
    page.put(Page::NumberOfPhysicalPages.offset(), &pages.to_le_bytes());
    page.put(Page::QpcFrequency.offset(), &time::FREQUENCY.to_le_bytes());
    let processors = u32::try_from(k.ke.processors.len()).expect("there are at most 64 processors");
    page.put(Page::ActiveProcessorCount.offset(), &processors.to_le_bytes());
    page.put(Page::ActiveGroupCount.offset(), &affinity::groups(k).to_le_bytes()[..1]);
}

/// The `PF_…` numbers of what a processor model has.
pub(crate) fn features(cpu: Cpu) -> impl Iterator<Item = u64> {
    // COMPARE_EXCHANGE_DOUBLE, MMX, XMMI, RDTSC, PAE, XMMI64, SSE_DAZ_MODE, NX, SSE3, COMPARE_EXCHANGE128, FASTFAIL, RDTSCP, SSSE3,
    // SSE4.1, SSE4.2.
    let second = [2_u64, 3, 6, 8, 9, 10, 11, 12, 13, 14, 23, 32, 36, 37, 38];
    // XSAVE, AVX, AVX2.
    let third = [17, 39, 40].into_iter().filter(move |_| cpu == Cpu::X86_64V3);
    second.into_iter().chain(third)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ke::rig::machine;
    use crate::ke::sched::slice;

    fn dword(cx: &mut Cx<'_>, offset: u64) -> u32 {
        polled(cx).unwrap();
        u32::from_le_bytes(bytes(cx, offset, 4).try_into().unwrap())
    }

    #[test]
    fn a_driver_reads_the_version_and_the_time_of_the_machine() {
        machine(|cx| {
            assert_eq!((dword(cx, 0x26C), dword(cx, 0x270), dword(cx, 0x260)), (10, 0, 26100));
            assert_eq!(dword(cx, 0x320), 0);
            slice::charge(cx, 3 * time::TICK);
            assert_eq!(dword(cx, 0x320), 3);
            assert_eq!(u64::from(dword(cx, 0x8)), 3 * time::INCREMENT);
            let system = u64::from(dword(cx, 0x14)) | u64::from(dword(cx, 0x18)) << 32;
            assert_eq!(system, time::BOOT + 3 * time::INCREMENT);
            assert_eq!(dword(cx, 0x18), dword(cx, 0x1C), "both high parts agree");
        });
    }

    #[test]
    fn a_loop_that_only_polls_the_tick_count_ends() {
        machine(|cx| {
            let mut reads = 0;
            while dword(cx, 0x320) < 10 {
                reads += 1;
                assert!(reads < 3000, "time stands still");
            }
        });
    }
}
