//! What every connection has, whatever it was made by: where its state lies, how others come to that, and its end.
//!
//! Pages: *Using IoConnectInterruptEx Prior to Windows Vista*, *KeSynchronizeExecution*, *IO_DISCONNECT_INTERRUPT_PARAMETERS*.
//! It does not know which versions there are to ask for, nor whose routine is called: `line`, `message`, `passive` and `vector`
//! do.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::marker::PhantomData;

use abi::{
    Code, DEVICE_OBJECT, DriverPtr, IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS as FullySpecified,
    IO_CONNECT_INTERRUPT_PARAMETERS as Connect, IO_DISCONNECT_INTERRUPT_PARAMETERS as Disconnect,
    IO_INTERRUPT_MESSAGE_INFO as Table, IO_INTERRUPT_MESSAGE_INFO_ENTRY as Entry, KINTERRUPT,
};

use super::{Claim, Service};
use crate::device::{Device, Tie};
use crate::irql::{self, Dirql, Passive};
use crate::pool::{PoolBox, Tag};
use crate::resource::Vector;
use crate::{Result, dpc, raw, sys};

/// The level at which a connection's routine runs, and what is synchronized with it: a device's, or `PASSIVE_LEVEL`.
pub(super) trait RoutineLevel {
    /// # Safety
    /// The processor is at this level, and will be whenever the proof is used.
    unsafe fn at() -> Self;
}

impl RoutineLevel for Dirql {
    unsafe fn at() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::assume() }
    }
}

impl RoutineLevel for Passive {
    unsafe fn at() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::assume() }
    }
}

/// What the service routine is called with.
pub(super) struct Context<S> {
    state: UnsafeCell<S>,
    device: *mut DEVICE_OBJECT,
    /// The kernel puts the interrupt object here, or the table of messages.
    connected: UnsafeCell<DriverPtr<()>>,
}

impl<S: Send + 'static> Context<S> {
    /// What is to be connected; it stays where it is.
    pub(super) fn new<T>(
        device: &Device<T>,
        state: S,
        tag: Tag,
        passive: &mut Passive,
    ) -> Result<PoolBox<Self>> {
        let connected = UnsafeCell::new(DriverPtr::NULL);
        PoolBox::new(Self { state: UnsafeCell::new(state), device: device.object(), connected }, tag, passive)
    }

    /// For the member `ServiceContext`.
    pub(super) fn service_context(&self) -> DriverPtr<()> {
        raw::stored(core::ptr::from_ref(self).cast_mut())
    }

    /// For the member that receives the interrupt object, or the table.
    pub(super) fn receiver<T>(&self) -> DriverPtr<DriverPtr<T>> {
        raw::stored(self.connected.get())
    }

    /// Calls a service routine with the state that is its own, and does what it claims.
    ///
    /// # Safety
    /// `context` is connected; the caller is its service routine, at the level `L` and with its lock held.
    pub(super) unsafe fn call<L: RoutineLevel>(
        context: *mut c_void,
        routine: impl FnOnce(&mut S, &mut L) -> Claim,
    ) -> u8 {
        let context = context.cast::<Self>();
        // SAFETY: the context lives for as long as the connection; its lock is held, so the state is ours.
        let (state, device) = unsafe { (&mut *(*context).state.get(), (*context).device) };
        // SAFETY: at the interrupt's level.
        let claim = routine(state, &mut unsafe { L::at() });
        if claim == Claim::MineAndDpc {
            // SAFETY: the device outlives its interrupt, and its DPC was initialized when it was made.
            unsafe { dpc::request(device) };
        }
        (claim != Claim::Other).into()
    }
}

/// The routine of a line or of one vector, for the members of that kind.
pub(super) fn line_routine<S: Service>() -> DriverPtr<Code> {
    let routine: sys::ServiceRoutine = serve::<S>;
    raw::stored((routine as *const ()).cast_mut())
}

unsafe extern "system" fn serve<S: Service>(_interrupt: *mut KINTERRUPT, context: *mut c_void) -> u8 {
    // SAFETY: registered with a context of this type, at a device's level.
    unsafe { Context::<S>::call(context, S::service) }
}

/// A connection. Dropping it disconnects and waits for the DPCs that were requested: at `PASSIVE_LEVEL`; above that its end is a bug
/// check, and so is the removal of its device if it is still there.
pub(super) struct Connection<S> {
    context: PoolBox<Context<S>>,
    version: u32,
    /// Its routine may run at PASSIVE_LEVEL, where a wait synchronizes with it.
    waits: bool,
    _tie: Tie,
}

// SAFETY: what a shared connection gives out, it gives to one processor at a time.
unsafe impl<S: Send> Sync for Connection<S> {}
// SAFETY: any thread may end it, and drop the routine's state with it.
unsafe impl<S: Send> Send for Connection<S> {}

impl<S: Send + 'static> Connection<S> {
    /// Connects as `parameters` ask; where the platform knows only the fully specified form, as `again` asks, if there is that. At
    /// `PASSIVE_LEVEL`. `waits` says that the line's level is that too.
    ///
    /// # Errors
    /// Those of `IoConnectInterruptEx`.
    ///
    /// # Safety
    /// At PASSIVE_LEVEL. All parameters are filled in for this context, with a routine for it, and for the device.
    pub(super) unsafe fn make<T>(
        device: &Device<T>,
        context: PoolBox<Context<S>>,
        mut parameters: Connect,
        again: Option<Connect>,
        waits: bool,
    ) -> Result<Self> {
        // SAFETY: at PASSIVE_LEVEL; the context stays where it is until the connection has ended.
        let mut status = unsafe { sys::IoConnectInterruptEx(&raw mut parameters) };
        // SAFETY: the parameters are ours.
        let version = unsafe { raw::get(&raw mut parameters, Connect::Version) };
        if !status.is_success()
            && version == abi::CONNECT_FULLY_SPECIFIED
            && let Some(again) = again
        {
            parameters = again;
            // SAFETY: as above.
            status = unsafe { sys::IoConnectInterruptEx(&raw mut parameters) };
        }
        if status.is_success() {
            let waits = waits && version != abi::CONNECT_MESSAGE_BASED;
            Ok(Self { context, version, waits, _tie: device.tie() })
        } else {
            Err(status)
        }
    }

    /// Runs `body` on the service routine's state, at its level and with its lock held.
    ///
    /// # Safety
    /// The routine's level is `L`; the caller is at most at `DISPATCH_LEVEL`, and where `L` is `PASSIVE_LEVEL` at that.
    ///
    /// # Panics
    /// Above `PASSIVE_LEVEL`, if the line's level turned out to be that: it is a bug check.
    #[track_caller]
    pub(super) unsafe fn synchronize<L: RoutineLevel, R>(&self, body: impl FnOnce(&mut S, &mut L) -> R) -> R {
        if self.waits {
            irql::expect_at_most(abi::PASSIVE_LEVEL);
        }
        let mut call =
            Call { state: self.context.state.get(), body: Some(body), result: None, level: PhantomData };
        // SAFETY: connected; `synchronized` is the routine for this type of call, which outlives it.
        unsafe { sys::KeSynchronizeExecution(self.object(), routine_of(&call), (&raw mut call).cast()) };
        let Some(result) = call.result else { unreachable!("KeSynchronizeExecution calls its routine") };
        result
    }

    /// The interrupt object; of messages the first one's, because all have one lock and one level.
    fn object(&self) -> *mut KINTERRUPT {
        match self.table() {
            // SAFETY: connected, so the table lives; it has a message at least.
            Some(table) => unsafe { raw::follow(Table::MessageInfo.of(table), Entry::InterruptObject) },
            None => raw::pointer(self.connected().cast()),
        }
    }
}

impl<S> Connection<S> {
    /// By which form it was connected in the end: `CONNECT_*`.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// The table of messages; none if it is a line.
    pub(super) fn table(&self) -> Option<*mut Table> {
        let of_messages = [abi::CONNECT_MESSAGE_BASED, abi::CONNECT_MESSAGE_BASED_PASSIVE];
        of_messages.contains(&self.version).then(|| raw::pointer(self.connected().cast()))
    }

    fn connected(&self) -> DriverPtr<()> {
        // SAFETY: written before `IoConnectInterruptEx` returned, and not after.
        unsafe { *self.context.connected.get() }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        irql::expect_at_most(abi::PASSIVE_LEVEL);
        let mut parameters = Disconnect::zeroed();
        // SAFETY: connected, by this version; at PASSIVE_LEVEL. After this no service routine runs, and
        // after the flush no DPC that one requested.
        unsafe {
            raw::set(&raw mut parameters, Disconnect::Version, self.version);
            raw::set(&raw mut parameters, Disconnect::ConnectionContext_Generic, self.connected());
            sys::IoDisconnectInterruptEx(&raw mut parameters);
            sys::KeFlushQueuedDpcs();
        }
    }
}

struct Call<S, F, L, R> {
    state: *mut S,
    body: Option<F>,
    result: Option<R>,
    level: PhantomData<L>,
}

fn routine_of<S, F, L: RoutineLevel, R>(_call: &Call<S, F, L, R>) -> sys::SynchronizeRoutine
where
    F: FnOnce(&mut S, &mut L) -> R,
{
    synchronized::<S, F, L, R>
}

unsafe extern "system" fn synchronized<S, F, L: RoutineLevel, R>(call: *mut c_void) -> u8
where
    F: FnOnce(&mut S, &mut L) -> R,
{
    // SAFETY: `synchronize` passed this call, and waits; the interrupt's lock is held, so the state is ours.
    let (call, state) = unsafe {
        let call = &mut *call.cast::<Call<S, F, L, R>>();
        let state = call.state;
        (call, &mut *state)
    };
    if let Some(body) = call.body.take() {
        // SAFETY: at the interrupt's level.
        call.result = Some(body(state, &mut unsafe { L::at() }));
    }
    1
}

/// The fully specified form, for one vector. A level that is `PASSIVE_LEVEL` has the routine run there.
pub(super) fn fully_specified<T, S: Send + 'static>(
    device: &Device<T>,
    context: &Context<S>,
    routine: DriverPtr<Code>,
    vector: &Vector,
) -> Connect {
    let mut parameters = Connect::zeroed();
    let at = &raw mut parameters;
    let full = Connect::FullySpecified.of(at);
    let mode = if vector.latched { abi::Latched } else { abi::LevelSensitive };
    // SAFETY: the parameters are ours.
    unsafe {
        raw::set(at, Connect::Version, abi::CONNECT_FULLY_SPECIFIED);
        raw::set(full, FullySpecified::PhysicalDeviceObject, raw::stored(device.pdo().object()));
        raw::set(full, FullySpecified::InterruptObject, context.receiver());
        raw::set(full, FullySpecified::ServiceRoutine, routine);
        raw::set(full, FullySpecified::ServiceContext, context.service_context());
        raw::set(full, FullySpecified::SynchronizeIrql, vector.irql);
        raw::set(full, FullySpecified::ShareVector, vector.shared.into());
        raw::set(full, FullySpecified::Vector, vector.vector);
        raw::set(full, FullySpecified::Irql, vector.irql);
        raw::set(full, FullySpecified::InterruptMode, mode);
        raw::set(full, FullySpecified::ProcessorEnableMask, vector.affinity);
    }
    parameters
}
