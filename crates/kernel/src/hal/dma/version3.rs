//! What DMA version 3 has besides, which is not there yet: each routine says so by its name when it is called.
//!
//! Page: *DMA_OPERATIONS structure*.

use engine::Flow;

use crate::cx::Cx;
use crate::verdict::Verdict;

macro_rules! absent {
    ($($routine:ident: $name:literal,)*) => {$(
        #[doc = concat!("`", $name, "`.")]
        ///
        /// # Errors
        /// Always.
        pub fn $routine(cx: &mut Cx<'_>, _adapter: u64) -> Flow<u64> {
            Err(cx.stop(Verdict::not_implemented(concat!($name, " of DMA_OPERATIONS"))))
        }
    )*};
}

absent! {
    get_adapter_info: "GetDmaAdapterInfo",
    get_transfer_info: "GetDmaTransferInfo",
    initialize_transfer_context: "InitializeDmaTransferContext",
    allocate_common_buffer_ex: "AllocateCommonBufferEx",
    allocate_adapter_channel_ex: "AllocateAdapterChannelEx",
    configure_adapter_channel: "ConfigureAdapterChannel",
    cancel_adapter_channel: "CancelAdapterChannel",
    map_transfer_ex: "MapTransferEx",
    get_scatter_gather_list_ex: "GetScatterGatherListEx",
    build_scatter_gather_list_ex: "BuildScatterGatherListEx",
    flush_adapter_buffers_ex: "FlushAdapterBuffersEx",
    free_adapter_object: "FreeAdapterObject",
    cancel_mapped_transfer: "CancelMappedTransfer",
    allocate_domain_common_buffer: "AllocateDomainCommonBuffer",
    flush_dma_buffer: "FlushDmaBuffer",
    join_dma_domain: "JoinDmaDomain",
    leave_dma_domain: "LeaveDmaDomain",
    get_dma_domain: "GetDmaDomain",
    allocate_common_buffer_with_bounds: "AllocateCommonBufferWithBounds",
    allocate_common_buffer_vector: "AllocateCommonBufferVector",
    get_common_buffer_from_vector: "GetCommonBufferFromVectorByIndex",
    free_common_buffer_from_vector: "FreeCommonBufferFromVector",
    free_common_buffer_vector: "FreeCommonBufferVector",
    create_common_buffer_from_mdl: "CreateCommonBufferFromMdl",
}
