//! What every connection has, whatever it was made by: where its state lies, how others come to that, and its end.
//!
//! Pages: *Using IoConnectInterruptEx Prior to Windows Vista*, *KeSynchronizeExecution*, *IO_DISCONNECT_INTERRUPT_PARAMETERS*.
//! It does not know which versions there are to ask for: `line` and `message` do.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::marker::PhantomData;

use abi::{
    Code, DEVICE_OBJECT, DriverPtr, IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS as FullySpecified,
    IO_CONNECT_INTERRUPT_PARAMETERS as Connect, IO_DISCONNECT_INTERRUPT_PARAMETERS as Disconnect,
    IO_INTERRUPT_MESSAGE_INFO as Table, IO_INTERRUPT_MESSAGE_INFO_ENTRY as Entry, KINTERRUPT,
};

use super::{Claim, Service};
use crate::device::Device;
use crate::irql::{AtMostDispatch, Dirql, Passive};
use crate::pool::{PoolBox, Tag};
use crate::resource::InterruptLine;
use crate::{Result, dpc, raw, sys};

/// What the service routine is called with.
pub(super) struct Context<S> {
    state: UnsafeCell<S>,
    device: *mut DEVICE_OBJECT,
    /// The kernel puts the interrupt object here, or the table of messages.
    connected: UnsafeCell<DriverPtr<()>>,
}

impl<S: Service> Context<S> {
    /// What is to be connected; it stays where it is.
    pub(super) fn new<T>(device: &Device<T>, state: S, tag: Tag) -> Result<PoolBox<Self>> {
        let connected = UnsafeCell::new(DriverPtr::NULL);
        PoolBox::new(Self { state: UnsafeCell::new(state), device: device.object(), connected }, tag)
    }

    /// For the member `ServiceContext`.
    pub(super) fn service_context(&self) -> DriverPtr<()> {
        raw::stored(core::ptr::from_ref(self).cast_mut())
    }

    /// For the member that receives the interrupt object, or the table.
    pub(super) fn receiver<T>(&self) -> DriverPtr<DriverPtr<T>> {
        raw::stored(self.connected.get())
    }

    /// The routine of a line, for the members of that kind.
    pub(super) fn line_routine() -> DriverPtr<Code> {
        let routine: sys::ServiceRoutine = serve::<S>;
        raw::stored((routine as *const ()).cast_mut())
    }

    /// Calls a service routine with the state that is its own, and does what it claims.
    ///
    /// # Safety
    /// `context` is connected; the caller is its service routine, at its level and with its lock held.
    pub(super) unsafe fn call(context: *mut c_void, routine: impl FnOnce(&mut S, &mut Dirql) -> Claim) -> u8 {
        let context = context.cast::<Self>();
        // SAFETY: the context lives for as long as the connection; its lock is held, so the state is ours.
        let (state, device) = unsafe { (&mut *(*context).state.get(), (*context).device) };
        // SAFETY: at the interrupt's level.
        let claim = routine(state, &mut unsafe { Dirql::assume() });
        if claim == Claim::MineAndDpc {
            // SAFETY: the device outlives its interrupt, and its DPC was initialized when it was made.
            unsafe { dpc::request(device) };
        }
        (claim != Claim::Other).into()
    }
}

unsafe extern "system" fn serve<S: Service>(_interrupt: *mut KINTERRUPT, context: *mut c_void) -> u8 {
    // SAFETY: registered with a context of this type.
    unsafe { Context::<S>::call(context, S::service) }
}

/// A connection. Dropping it disconnects and waits for the DPCs that were requested, so it must not be dropped above
/// `PASSIVE_LEVEL`: it is not [`Send`], so that only a [`crate::Rundown`] can hold it in a device.
pub(super) struct Connection<S> {
    context: PoolBox<Context<S>>,
    version: u32,
    only_passive_drops: PhantomData<*mut ()>,
}

// SAFETY: what a shared connection gives out, it gives to one processor at a time.
unsafe impl<S: Send> Sync for Connection<S> {}

impl<S: Service> Connection<S> {
    /// Connects as `parameters` ask; where the platform knows only the fully specified form, the line by that.
    ///
    /// # Errors
    /// Those of `IoConnectInterruptEx`.
    ///
    /// # Safety
    /// The parameters are filled in for this context, and for a device that outlives the connection.
    pub(super) unsafe fn make<T>(
        device: &Device<T>,
        context: PoolBox<Context<S>>,
        mut parameters: Connect,
        line: Option<&InterruptLine>,
        _passive: &mut Passive,
    ) -> Result<Self> {
        // SAFETY: at PASSIVE_LEVEL; the context stays where it is until the connection has ended.
        let mut status = unsafe { sys::IoConnectInterruptEx(&raw mut parameters) };
        // SAFETY: the parameters are ours.
        let version = unsafe { raw::get(&raw mut parameters, Connect::Version) };
        if !status.is_success()
            && version == abi::CONNECT_FULLY_SPECIFIED
            && let Some(line) = line
        {
            parameters = fully_specified(device, &context, line);
            // SAFETY: as above.
            status = unsafe { sys::IoConnectInterruptEx(&raw mut parameters) };
        }
        if status.is_success() {
            Ok(Self { context, version, only_passive_drops: PhantomData })
        } else {
            Err(status)
        }
    }

    /// Runs `body` on the service routine's state, at its level and with its lock held.
    pub(super) fn synchronize<L: AtMostDispatch, R>(
        &self,
        _level: &mut L,
        body: impl FnOnce(&mut S, &mut Dirql) -> R,
    ) -> R {
        let mut call = Call { state: self.context.state.get(), body: Some(body), result: None };
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
        (self.version == abi::CONNECT_MESSAGE_BASED).then(|| raw::pointer(self.connected().cast()))
    }

    fn connected(&self) -> DriverPtr<()> {
        // SAFETY: written before `IoConnectInterruptEx` returned, and not after.
        unsafe { *self.context.connected.get() }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        let mut parameters = Disconnect::zeroed();
        // SAFETY: connected, by this version; at PASSIVE_LEVEL, as the type asks. After this no service routine runs, and
        // after the flush no DPC that one requested.
        unsafe {
            raw::set(&raw mut parameters, Disconnect::Version, self.version);
            raw::set(&raw mut parameters, Disconnect::ConnectionContext_Generic, self.connected());
            sys::IoDisconnectInterruptEx(&raw mut parameters);
            sys::KeFlushQueuedDpcs();
        }
    }
}

struct Call<S, F, R> {
    state: *mut S,
    body: Option<F>,
    result: Option<R>,
}

fn routine_of<S, F, R>(_call: &Call<S, F, R>) -> sys::SynchronizeRoutine
where
    F: FnOnce(&mut S, &mut Dirql) -> R,
{
    synchronized::<S, F, R>
}

unsafe extern "system" fn synchronized<S, F, R>(call: *mut c_void) -> u8
where
    F: FnOnce(&mut S, &mut Dirql) -> R,
{
    // SAFETY: `synchronize` passed this call, and waits; the interrupt's lock is held, so the state is ours.
    let (call, state) = unsafe {
        let call = &mut *call.cast::<Call<S, F, R>>();
        let state = call.state;
        (call, &mut *state)
    };
    if let Some(body) = call.body.take() {
        // SAFETY: at the interrupt's level.
        call.result = Some(body(state, &mut unsafe { Dirql::assume() }));
    }
    1
}

fn fully_specified<T, S: Service>(device: &Device<T>, context: &Context<S>, line: &InterruptLine) -> Connect {
    let mut parameters = Connect::zeroed();
    let at = &raw mut parameters;
    let full = Connect::FullySpecified.of(at);
    let mode = if line.latched { abi::Latched } else { abi::LevelSensitive };
    // SAFETY: the parameters are ours.
    unsafe {
        raw::set(at, Connect::Version, abi::CONNECT_FULLY_SPECIFIED);
        raw::set(full, FullySpecified::PhysicalDeviceObject, raw::stored(device.pdo().object()));
        raw::set(full, FullySpecified::InterruptObject, context.receiver());
        raw::set(full, FullySpecified::ServiceRoutine, Context::<S>::line_routine());
        raw::set(full, FullySpecified::ServiceContext, context.service_context());
        raw::set(full, FullySpecified::SynchronizeIrql, line.irql);
        raw::set(full, FullySpecified::ShareVector, line.shared.into());
        raw::set(full, FullySpecified::Vector, line.vector);
        raw::set(full, FullySpecified::Irql, line.irql);
        raw::set(full, FullySpecified::InterruptMode, mode);
        raw::set(full, FullySpecified::ProcessorEnableMask, line.affinity);
    }
    parameters
}
