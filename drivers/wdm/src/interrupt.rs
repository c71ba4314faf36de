//! A connected interrupt line, and the state that its service routine has for itself.
//!
//! Pages: *IoConnectInterruptEx*, *Using the CONNECT_LINE_BASED Version of IoConnectInterruptEx*,
//! *KeSynchronizeExecution*. What the service routine works on belongs to the connection: the routine has it alone, and
//! others reach it only by [`Interrupt::synchronize`]. Where the platform does not know lines it asks for the fully
//! specified form, and gets it. It does not connect messages.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::null_mut;

use abi::{
    Code, DEVICE_OBJECT, DriverPtr, IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS as FullySpecified,
    IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS as LineBased, IO_CONNECT_INTERRUPT_PARAMETERS as Connect,
    IO_DISCONNECT_INTERRUPT_PARAMETERS as Disconnect, KINTERRUPT,
};

use crate::device::Device;
use crate::irql::{AtMostDispatch, Dirql, Passive};
use crate::pool::{PoolBox, Tag};
use crate::resource::InterruptLine;
use crate::{Result, dpc, raw, sys};

/// Whose interrupt it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// Another device's on this line.
    Other,
    /// This device's; nothing is left to do.
    Mine,
    /// This device's; its `DpcForIsr` shall run (`IoRequestDpc`).
    MineAndDpc,
}

/// The state of an interrupt service routine.
pub trait Service: Send + 'static {
    /// The routine. It runs at the device's level with the interrupt's spin lock held.
    fn service(&mut self, dirql: &mut Dirql) -> Claim;
}

struct Context<S> {
    state: UnsafeCell<S>,
    device: *mut DEVICE_OBJECT,
    object: UnsafeCell<*mut KINTERRUPT>,
}

/// A connection. Dropping it disconnects and waits for the DPCs that were requested, so it must not be dropped above
/// `PASSIVE_LEVEL`: it is not [`Send`], so that only a [`crate::Rundown`] can hold it in a device.
pub struct Interrupt<S> {
    context: PoolBox<Context<S>>,
    version: u32,
    only_passive_drops: PhantomData<*mut ()>,
}

// SAFETY: what a shared connection gives out, it gives to one processor at a time.
unsafe impl<S: Send> Sync for Interrupt<S> {}

impl<S: Service> Interrupt<S> {
    /// Connects `state`'s service routine to the device's line. The card must be quiet, or the routine ready for it.
    ///
    /// # Errors
    /// Those of `IoConnectInterruptEx`, and `STATUS_INSUFFICIENT_RESOURCES`; `state` is dropped.
    pub fn connect<T>(
        device: &Device<T>,
        line: &InterruptLine,
        state: S,
        tag: Tag,
        _passive: &mut Passive,
    ) -> Result<Self> {
        let context = Context {
            state: UnsafeCell::new(state),
            device: device.object(),
            object: UnsafeCell::new(null_mut()),
        };
        let context = PoolBox::new(context, tag)?;
        let mut parameters = line_based(device.pdo().object(), &context);
        // SAFETY: at PASSIVE_LEVEL; the context stays where it is until the connection has ended.
        let mut status = unsafe { sys::IoConnectInterruptEx(&raw mut parameters) };
        // SAFETY: the parameters are ours.
        let mut version = unsafe { raw::get(&raw mut parameters, Connect::Version) };
        if !status.is_success() && version == abi::CONNECT_FULLY_SPECIFIED {
            parameters = fully_specified(device.pdo().object(), &context, line);
            // SAFETY: as above.
            status = unsafe { sys::IoConnectInterruptEx(&raw mut parameters) };
            version = abi::CONNECT_FULLY_SPECIFIED;
        }
        if status.is_success() {
            Ok(Self { context, version, only_passive_drops: PhantomData })
        } else {
            Err(status)
        }
    }

    /// Runs `body` on the service routine's state, at its level and with its lock held.
    pub fn synchronize<L: AtMostDispatch, R>(
        &self,
        _level: &mut L,
        body: impl FnOnce(&mut S, &mut Dirql) -> R,
    ) -> R {
        let mut call = Call { state: self.context.state.get(), body: Some(body), result: None };
        // SAFETY: connected; `synchronized` is the routine for this type of call, which outlives it.
        unsafe {
            let object = *self.context.object.get();
            sys::KeSynchronizeExecution(object, routine_of(&call), (&raw mut call).cast());
        }
        let Some(result) = call.result else { unreachable!("KeSynchronizeExecution calls its routine") };
        result
    }
}

impl<S> Drop for Interrupt<S> {
    fn drop(&mut self) {
        let mut parameters = Disconnect::zeroed();
        // SAFETY: connected, by this version; at PASSIVE_LEVEL, as the type asks. After this no service routine runs, and
        // after the flush no DPC that one requested.
        unsafe {
            let object = raw::stored(*self.context.object.get());
            raw::set(&raw mut parameters, Disconnect::Version, self.version);
            raw::set(&raw mut parameters, Disconnect::ConnectionContext_InterruptObject, object);
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

unsafe extern "system" fn serve<S: Service>(_interrupt: *mut KINTERRUPT, context: *mut c_void) -> u8 {
    let context = context.cast::<Context<S>>();
    // SAFETY: the context lives for as long as the connection; its lock is held, so the state is ours.
    let (state, device) = unsafe { (&mut *(*context).state.get(), (*context).device) };
    // SAFETY: at the interrupt's level.
    let claim = state.service(&mut unsafe { Dirql::assume() });
    if claim == Claim::MineAndDpc {
        // SAFETY: the device outlives its interrupt, and its DPC was initialized when it was made.
        unsafe { dpc::request(device) };
    }
    (claim != Claim::Other).into()
}

fn code(routine: sys::ServiceRoutine) -> DriverPtr<Code> {
    raw::stored((routine as *const ()).cast_mut())
}

fn line_based<S: Service>(pdo: *mut DEVICE_OBJECT, context: &PoolBox<Context<S>>) -> Connect {
    let mut parameters = Connect::zeroed();
    let at = &raw mut parameters;
    let line = Connect::LineBased.of(at);
    // SAFETY: the parameters are ours.
    unsafe {
        raw::set(at, Connect::Version, abi::CONNECT_LINE_BASED);
        raw::set(line, LineBased::PhysicalDeviceObject, raw::stored(pdo));
        raw::set(line, LineBased::InterruptObject, raw::stored(context.object.get()));
        raw::set(line, LineBased::ServiceRoutine, code(serve::<S>));
        raw::set(line, LineBased::ServiceContext, raw::stored(context.as_ptr()));
    }
    parameters
}

fn fully_specified<S: Service>(
    pdo: *mut DEVICE_OBJECT,
    context: &PoolBox<Context<S>>,
    line: &InterruptLine,
) -> Connect {
    let mut parameters = Connect::zeroed();
    let at = &raw mut parameters;
    let full = Connect::FullySpecified.of(at);
    let mode = if line.latched { abi::Latched } else { abi::LevelSensitive };
    // SAFETY: the parameters are ours.
    unsafe {
        raw::set(at, Connect::Version, abi::CONNECT_FULLY_SPECIFIED);
        raw::set(full, FullySpecified::PhysicalDeviceObject, raw::stored(pdo));
        raw::set(full, FullySpecified::InterruptObject, raw::stored(context.object.get()));
        raw::set(full, FullySpecified::ServiceRoutine, code(serve::<S>));
        raw::set(full, FullySpecified::ServiceContext, raw::stored(context.as_ptr()));
        raw::set(full, FullySpecified::SynchronizeIrql, line.irql);
        raw::set(full, FullySpecified::ShareVector, line.shared.into());
        raw::set(full, FullySpecified::Vector, line.vector);
        raw::set(full, FullySpecified::Irql, line.irql);
        raw::set(full, FullySpecified::InterruptMode, mode);
        raw::set(full, FullySpecified::ProcessorEnableMask, line.affinity);
    }
    parameters
}
