//! How the kernel comes up: control regions, stacks and idle threads of the processors. `KPCR` as `ntddk.h` has its public part.

use abi::{DriverPtr, KPCR, KPRCB};
use engine::Flow;

use super::sched::{affinity, processor::set_current_thread};
use super::waits::thread;
use crate::cx::Cx;
use crate::mm::{pool, stack};

/// Bytes of a control region; of these drivers read the head.
const REGION: u64 = 0x1000;

/// Sets up the processors' memory and idle threads. Once, before the first thread.
///
/// # Errors
/// [`engine::Leave::Stop`] if the machine ends meanwhile.
pub(crate) fn boot(cx: &mut Cx<'_>) -> Flow<()> {
    let count = cx.with(|k| k.ke.processors.len());
    for index in 0..count {
        let region: DriverPtr<KPCR> = pool::allocate(cx, pool::Kind::NonPaged, REGION, pool::tag(b"Pcr "))?;
        assert!(!region.is_null(), "a fresh machine has memory for its processors");
        let bytes = cx.with(|k| k.ke.stack_bytes());
        let mut stack = || stack::allocate(cx, bytes).expect("as above").base;
        let (dpc_stack, interrupt_stack) = (stack(), stack());
        write_region(cx, region, index)?;
        cx.with(|k| {
            let processor = &mut k.ke.processors[index];
            (processor.region, processor.dpc_stack, processor.interrupt_stack) =
                (region, dpc_stack, interrupt_stack);
        });
        let idle = thread::spawn_idle(cx, index)?;
        let object = cx.with(|k| {
            let object = k.ke.sched.threads()[idle].object;
            (k.ke.processors[index].idle, k.ke.processors[index].idle_object) = (idle, object);
            set_current_thread(k, index, idle);
            object
        });
        cx.write((region + KPCR::Prcb) + KPRCB::IdleThread, object)?;
    }
    let first = cx.with(|k| k.ke.processors[0].region);
    cx.engine().set_processor_region(first.address);
    Ok(())
}

fn write_region(cx: &mut Cx<'_>, region: DriverPtr<KPCR>, index: usize) -> Flow<()> {
    let number = u32::try_from(index).expect("there are at most 64 processors");
    let (_, in_group) = cx.with(|k| affinity::number(k, number));
    let block = region + KPCR::Prcb;
    cx.write(region + KPCR::Self_, region)?;
    cx.write(region + KPCR::CurrentPrcb, block)?;
    cx.write(region + KPCR::MajorVersion, 1)?;
    cx.write(region + KPCR::MinorVersion, 1)?;
    cx.write(region + KPCR::ObsoleteNumber, in_group)?;
    cx.write(region + KPCR::StallScaleFactor, 1000)?;
    cx.write(block + KPRCB::MxCsr, 0x1F80)?;
    // What inlined `KeGetCurrentProcessorNumber` and `KeGetCurrentProcessorIndex` read.
    cx.write(block + KPRCB::LegacyNumber, in_group)?;
    cx.write(block + KPRCB::Number, number)
}
