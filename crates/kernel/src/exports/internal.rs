//! Kernel routines that driver structures point to but nobody imports by name: dispatch routines of built-in drivers,
//! functions of interfaces, DMA operations. One line each, sorted, as in `functions.rs`.
//!
//! Their addresses are [`crate::ldr::internal_address`]'s.

use super::arguments::{IntoResult, exports};

exports! { INTERNAL:
    : IopCsqCancelRoutine(2) @ 2..=2 => io::csq::cancel_routine;
    : IopForwardCompletion(3) @ 0..=2 => io::query::forward_completion;
    : IopInvalidDeviceRequest(2) @ 0..=2 => io::driver::invalid_device_request;
    : IopTimerDispatch(2) @ 2..=2 => io::timer::tick;
    : PciDispatchPnp(2) @ 0..=0 => pnp::bus_pnp::dispatch;
    : PciDispatchPower(2) @ 0..=2 => pnp::bus_power::dispatch;
    : PciDispatchSystemControl(2) @ 0..=2 => pnp::bus::dispatch_system_control;
    : PciGetBusData(5) @ 0..=15 => pnp::bus_interface::get_data;
    : PciGetDmaAdapter(3) @ 0..=0 => pnp::bus_interface::dma_adapter;
    : PciInterfaceDereference(1) @ 0..=2 => pnp::bus_interface::dereference;
    : PciInterfaceReference(1) @ 0..=2 => pnp::bus_interface::reference;
    : PciSetBusData(5) @ 0..=15 => pnp::bus_interface::set_data;
    : PciTranslateBusAddress(5) @ 0..=2 => pnp::bus_interface::translate;
}
