//! Kernel routines that driver structures point to but no driver imports by name: dispatch routines of built-in drivers,
//! functions of interfaces, DMA operations. One line each, sorted, as in `functions.rs`.
//!
//! Their addresses are [`crate::ldr::internal_address`]'s.

use super::arguments::{IntoResult, exports};

exports! { INTERNAL:
    : FolderCancelLock(2) @ 2..=2 => fs::locks::cancel;
    : FolderDispatch(2) @ 0..=0 => fs::dispatch::dispatch;
    : HalpAllocateAdapterChannel(5) @ 2..=2 ~ 0..=2 => hal::dma::channel::allocate;
    : HalpAllocateAdapterChannelEx(8) @ 2..=2 ~ 0..=2 => hal::dma::extended::allocate_channel;
    : HalpAllocateCommonBuffer(4) @ 0..=0 ~ 0..=2 => hal::dma::common_buffer::allocate;
    : HalpAllocateCommonBufferEx(6) @ 0..=0 ~ 0..=2 => hal::dma::common_buffer::allocate_ex;
    : HalpAllocateCommonBufferVector(9) @ 0..=0 ~ 0..=2 => hal::dma::vector::allocate;
    : HalpAllocateCommonBufferWithBounds(8) @ 0..=0 ~ 0..=2 => hal::dma::common_buffer::allocate_with_bounds;
    : HalpAllocateDomainCommonBuffer(9) @ 0..=0 => hal::dma::domains::allocate;
    : HalpBuildMdlFromScatterGatherList(4) @ 0..=2 => hal::dma::scatter_gather::build_mdl;
    : HalpBuildScatterGatherList(10) @ 2..=2 ~ 0..=2 => hal::dma::scatter_gather::build;
    : HalpBuildScatterGatherListEx(15) @ 2..=2 ~ 0..=2 => hal::dma::extended::build_list;
    : HalpCalculateScatterGatherList(6) @ 0..=15 => hal::dma::scatter_gather::calculate;
    : HalpCancelAdapterChannel(3) @ 0..=2 => hal::dma::extended::cancel;
    : HalpCancelMappedTransfer(2) @ 0..=2 => hal::dma::system::cancel;
    : HalpConfigureAdapterChannel(3) @ 0..=2 => hal::dma::system::configure;
    : HalpCreateCommonBufferFromMdl(5) @ 0..=2 => hal::dma::from_mdl::create;
    : HalpFlushAdapterBuffers(6) @ 0..=2 => hal::dma::transfer::flush;
    : HalpFlushAdapterBuffersEx(6) @ 0..=2 => hal::dma::extended::flush;
    : HalpFlushDmaBuffer(3) @ 0..=2 => hal::dma::domains::flush;
    : HalpFreeAdapterChannel(1) @ 2..=2 ~ 0..=2 => hal::dma::channel::free;
    : HalpFreeAdapterObject(2) @ 0..=2 => hal::dma::extended::free_object;
    : HalpFreeCommonBuffer(5) @ 0..=0 ~ 0..=2 => hal::dma::common_buffer::free;
    : HalpFreeCommonBufferFromVector(3) @ 0..=0 ~ 0..=2 => hal::dma::vector::free_one;
    : HalpFreeCommonBufferVector(2) @ 0..=0 ~ 0..=2 => hal::dma::vector::free;
    : HalpFreeMapRegisters(3) @ 2..=2 ~ 0..=2 => hal::dma::channel::free_registers;
    : HalpGetCommonBufferFromVectorByIndex(5) @ 0..=2 => hal::dma::vector::get;
    : HalpGetDmaAdapterInfo(2) @ 0..=2 => hal::dma::extended::adapter_info;
    : HalpGetDmaAlignment(1) @ 0..=2 => hal::dma::alignment;
    : HalpGetDmaDomain(1) @ 0..=2 => hal::dma::domains::get;
    : HalpGetDmaTransferInfo(6) @ 0..=2 => hal::dma::extended::transfer_info;
    : HalpGetScatterGatherList(8) @ 2..=2 ~ 0..=2 => hal::dma::scatter_gather::get;
    : HalpGetScatterGatherListEx(13) @ 0..=2 => hal::dma::extended::get_list;
    : HalpInitializeDmaTransferContext(2) @ 0..=2 => hal::dma::extended::initialize_context;
    : HalpJoinDmaDomain(2) @ 0..=0 => hal::dma::domains::join;
    : HalpLeaveDmaDomain(1) @ 0..=0 => hal::dma::domains::leave;
    : HalpMapTransfer(6) @ 0..=2 => hal::dma::transfer::map_transfer;
    : HalpMapTransferEx(11) @ 0..=2 => hal::dma::extended::map_transfer;
    : HalpPutDmaAdapter(1) @ 0..=2 => hal::dma::put;
    : HalpPutScatterGatherList(3) @ 2..=2 ~ 0..=2 => hal::dma::scatter_gather::put;
    : HalpReadDmaCounter(1) @ 0..=2 => hal::dma::system::counter;
    : IopCsqCancelRoutine(2) @ 2..=2 => io::csq::cancel_routine;
    : IopForwardCompletion(3) @ 0..=2 => io::query::forward_completion;
    : IopInvalidDeviceRequest(2) @ 0..=2 => io::driver::invalid_device_request;
    : IopTimerDispatch(2) @ 2..=2 => io::timer::tick;
    : PciCancelAnswer(2) @ 2..=2 => pnp::answer_later::cancel;
    : PciCancelWaitWake(2) @ 2..=2 => pnp::wake::cancel;
    : PciDispatchPnp(2) @ 0..=0 => pnp::bus_pnp::dispatch;
    : PciDispatchPower(2) @ 0..=2 => pnp::bus_power::dispatch;
    : PciDispatchSystemControl(2) @ 0..=2 => pnp::bus::dispatch_system_control;
    : PciGetBusData(5) @ 0..=15 => pnp::bus_interface::get_data;
    : PciGetDmaAdapter(3) @ 0..=0 => pnp::bus_interface::dma_adapter;
    : PciInterfaceDereference(1) @ 0..=2 => pnp::bus_interface::dereference;
    : PciInterfaceReference(1) @ 0..=2 => pnp::bus_interface::reference;
    : PciSetBusData(5) @ 0..=15 => pnp::bus_interface::set_data;
    : PciTranslateBusAddress(5) @ 0..=2 => pnp::bus_interface::translate;
    : PopIdleTick(2) @ 2..=2 => po::idle::tick;
    : RootDispatchPnp(2) @ 0..=0 => pnp::root::dispatch;
    : StandInAgree(2) @ 0..=0 => io::stand_in::agree;
}
