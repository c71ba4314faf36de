//! A client's function table: its entries are ours (`ldr::between`), so that each call of a framework's function is seen as a call of an export is.
//!
//! A client of KMDF 1.13 and before has an array of its own, whose entries are replaced. Later ones have the address of the framework's table, and
//! get that of a copy. Functions that are not known here stay as the framework has them.

use abi::{DriverPtr, WDF_BIND_INFO, WDF_BIND_INFO2, WDF_MOST_COPIED_FUNCTIONS};
use engine::{Args, Flow, Leave};

use super::ddis::DDIS;
use super::library::bytes;
use super::{TAG, answers, bind::Client, callbacks, power_policy};
use crate::cx::Cx;
use crate::ldr::between;
use crate::ldr::between::ddi::{self, PUSHED};
use crate::mm::pool;
use crate::verdict::Verdict;

/// The functions that a client calls by its table.
#[derive(Default)]
pub(super) struct Table {
    /// The framework's, by their index.
    functions: Vec<u64>,
    copied: Copied,
}

/// The framework's own table, and the copy that a client has of it; none for a client with an array of its own.
#[derive(Default)]
pub(super) struct Copied(Option<(u64, DriverPtr<u64>)>);

/// A table of a framework to come may be larger, but not by much.
const MOST_FUNCTIONS: u32 = 0x1000;

impl Table {
    /// Puts our entries into the table of a client that its framework has just bound.
    ///
    /// # Errors
    /// A verdict if the table cannot be read.
    pub(super) fn take(cx: &mut Cx<'_>, bind: DriverPtr<WDF_BIND_INFO>) -> Flow<Self> {
        let place = cx.read(bind + WDF_BIND_INFO::FuncTable)?;
        let count = count(cx, bind)?;
        if count > MOST_FUNCTIONS || !between::boot(cx) {
            // The client has what the framework gave it, and its calls are not seen.
            return Ok(Self::default());
        }
        let is_own = cx.read(bind + WDF_BIND_INFO::FuncCount)? <= WDF_MOST_COPIED_FUNCTIONS;
        let table = if is_own { place } else { DriverPtr::new(cx.read(place)?) };
        let words = cx.read_bytes(table.address, 8 * u64::from(count))?;
        let functions: Vec<u64> =
            words.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes"))).collect();
        let ours = functions.iter().enumerate().map(|(index, function)| match *function {
            function if index < DDIS.len() && function != 0 => ddi::entry(index),
            function => function,
        });
        let ours: Vec<u8> = ours.flat_map(u64::to_le_bytes).collect();
        if is_own {
            cx.write_bytes(table.address, &ours)?;
            return Ok(Self { functions, copied: Copied(None) });
        }
        let copy: DriverPtr<u64> = pool::allocate(cx, pool::Kind::NonPaged, ours.len() as u64, TAG)?;
        if copy.is_null() {
            return Ok(Self::default());
        }
        cx.write_bytes(copy.address, &ours)?;
        cx.write(place, copy.address)?;
        Ok(Self { functions, copied: Copied(Some((table.address, copy))) })
    }

    /// The function of this index, where the client has one.
    pub(super) fn function(&self, index: usize) -> Option<u64> {
        self.functions.get(index).copied()
    }

    /// What is to be given back; its functions go on to be known.
    pub(super) fn take_copied(&mut self) -> Copied {
        std::mem::take(&mut self.copied)
    }
}

impl Copied {
    /// The client leaves its framework, which finds what it had given.
    ///
    /// # Errors
    /// A verdict if the client's memory is gone.
    pub(super) fn give_back(self, cx: &mut Cx<'_>, bind: DriverPtr<WDF_BIND_INFO>) -> Flow<()> {
        let Some((own, copy)) = self.0 else { return Ok(()) };
        let place = cx.read(bind + WDF_BIND_INFO::FuncTable)?;
        cx.write(place, own)?;
        pool::free(cx, copy)
    }
}

/// How many functions the client's table has: a client that is newer than its framework finds in its own variables how many that has.
fn count(cx: &mut Cx<'_>, bind: DriverPtr<WDF_BIND_INFO>) -> Flow<u32> {
    let wanted = cx.read(bind + WDF_BIND_INFO::FuncCount)?;
    if cx.read(bind + WDF_BIND_INFO::Size)? < bytes::<WDF_BIND_INFO2>() {
        return Ok(wanted);
    }
    let more: DriverPtr<WDF_BIND_INFO2> = bind.cast();
    let higher = cx.read(more + WDF_BIND_INFO2::ClientVersionHigherThanFramework)?;
    let there = cx.read(more + WDF_BIND_INFO2::FuncCountPtr)?;
    if higher.is_null() || there.is_null() || cx.read(higher)? == 0 {
        return Ok(wanted);
    }
    Ok(wanted.min(cx.read(there)?))
}

/// Where the call returns to that a client makes now, in that of its entry's thunk.
///
/// # Errors
/// A verdict if the stack cannot be read.
#[inline]
pub(crate) fn return_address(cx: &mut Cx<'_>, args: &Args) -> Flow<u64> {
    cx.read(DriverPtr::new(place(args)))
}

/// Where on the client's stack the return address lies, below its arguments.
#[inline]
fn place(args: &Args) -> u64 {
    args.rsp + 8 + u64::from(PUSHED)
}

/// The framework's function that is called, by the client whose globals are the first argument. The framework gets our addresses for callbacks.
/// The call is noted by where on the stack the return address is, `caller`: for verdicts to say.
///
/// # Errors
/// A verdict if the framework has none there, or what is handed over cannot be read.
#[inline]
pub(crate) fn target(cx: &mut Cx<'_>, index: usize, caller: u64, args: &Args) -> Flow<u64> {
    cx.engine().note_call(answers::row_of_ddi(index), place(args), caller);
    let globals = args.registers[0];
    let strand = cx.engine().strand();
    let (found, has_copies) = cx.with(|k| {
        let has = |client: &&Client| client.table.function(index).is_some();
        let mut clients = k.wdf.clients.iter().filter(has);
        // Of several clients one whose first argument is wrong cannot be known: all have the same functions, but for the verifier's.
        let any = clients.clone().next();
        let client = clients.find(|client| client.globals == globals).or(any);
        let function = client.and_then(|client| client.table.function(index));
        (function, k.wdf.callbacks.has_copies(strand))
    });
    if power_policy::is_said_by(index) {
        cx.with(|k| power_policy::called(k, args.registers));
    }
    if has_copies || callbacks::is_given(index) {
        callbacks::hand_over(cx, index, place(args), args)?;
    }
    found.map_or_else(|| Err(unbound(cx, index)), Ok)
}

#[cold]
fn unbound(cx: &mut Cx<'_>, index: usize) -> Leave {
    let name = DDIS[index].name;
    let message =
        format!("{name} was called by a table of functions, and no driver is bound to a framework any more");
    cx.stop(Verdict::error("ddi-after-unbind", message))
}
