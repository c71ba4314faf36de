//! Whether thread objects and the control regions of processors are still what the kernel made of them: a driver that writes over one is
//! reported where the thread ends, or at the end of the run.
//!
//! Pages: *KeGetCurrentThread function*, *Windows Kernel Opaque Structures*; `ntddk.h` for `KPCR`. Only members that never change are
//! compared. A thread object that is waited for is looked at by `dispatcher`.

use abi::{DISPATCHER_HEADER, DriverPtr, KPCR, KPRCB, KTHREAD, LIST_ENTRY};
use engine::{BadAddress, Flow};

use super::dispatcher::Kind;
use crate::cx::{Cx, Kernel};
use crate::verdict::Verdict;

/// The object of a thread that is there: its header.
///
/// # Errors
/// A verdict if it was written over.
pub(super) fn check_thread(cx: &mut Cx<'_>, object: DriverPtr<KTHREAD>, name: &str) -> Flow<()> {
    let wrong = cx.with(|k| wrong_in_thread(k, object)).map_err(|bad| cx.bad_pointer(bad))?;
    let Some(wrong) = wrong else { return Ok(()) };
    let message = format!("the object {:#x} of the {name} was written over: {wrong}", object.address);
    Err(cx.stop(Verdict::error("thread-object-damaged", message)))
}

fn wrong_in_thread(k: &Kernel, object: DriverPtr<KTHREAD>) -> Result<Option<String>, BadAddress> {
    let header = object + KTHREAD::Header;
    let kind = k.engine.read(header + DISPATCHER_HEADER::Type)?;
    if kind != Kind::Thread as u8 {
        return Ok(Some(format!("its Type is {kind:#x}, not {:#x}", Kind::Thread as u8)));
    }
    let list = header + DISPATCHER_HEADER::WaitListHead;
    let first = k.engine.read(list + LIST_ENTRY::Flink)?;
    let back = k.engine.read(first + LIST_ENTRY::Blink).ok();
    let whole = back.is_some_and(|back| back.address == list.address);
    Ok((!whole).then(|| {
        format!("its list of those who wait begins at {:#x}, which does not lead back", first.address)
    }))
}

/// A processor's control region: where it and its control block are, whose number it has, what runs when nothing does.
fn wrong_in_processor(k: &Kernel, index: usize) -> Result<Option<String>, BadAddress> {
    let processor = &k.ke.processors[index];
    let (region, block) = (processor.region, processor.control_block());
    let is = [
        ("Self", k.engine.read(region + KPCR::Self_)?.address, region.address),
        ("CurrentPrcb", k.engine.read(region + KPCR::CurrentPrcb)?.address, block.address),
        ("Prcb.Number", k.engine.read(block + KPRCB::Number)?.into(), processor.number.into()),
        ("Prcb.IdleThread", k.engine.read(block + KPRCB::IdleThread)?.address, processor.idle_object.address),
    ];
    let wrong = is.into_iter().find(|(_, is, was)| is != was);
    Ok(wrong.map(|(member, is, was)| format!("its {member} is {is:#x}, not {was:#x}")))
}

/// Every thread and every processor: at the end of the run.
///
/// # Errors
/// A verdict if one was written over.
pub fn check_all(cx: &mut Cx<'_>) -> Flow<()> {
    for index in 0..cx.with(|k| k.ke.processors.len()) {
        let wrong = cx.with(|k| wrong_in_processor(k, index)).map_err(|bad| cx.bad_pointer(bad))?;
        if let Some(wrong) = wrong {
            let message = format!("the control region (KPCR) of processor {index} was written over: {wrong}");
            return Err(cx.stop(Verdict::error("processor-region-damaged", message)));
        }
    }
    let threads: Vec<_> =
        cx.with(|k| k.ke.sched.threads().iter().map(|thread| (thread.object, thread.name.clone())).collect());
    for (object, name) in threads {
        check_thread(cx, object, &name)?;
    }
    Ok(())
}
