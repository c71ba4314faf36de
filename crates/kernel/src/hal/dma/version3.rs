//! What of DMA version 3 is not there: each routine says so by its name when it is called.
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
    configure_adapter_channel: "ConfigureAdapterChannel",
    cancel_mapped_transfer: "CancelMappedTransfer",
    allocate_domain_common_buffer: "AllocateDomainCommonBuffer",
    flush_dma_buffer: "FlushDmaBuffer",
    join_dma_domain: "JoinDmaDomain",
    leave_dma_domain: "LeaveDmaDomain",
    get_dma_domain: "GetDmaDomain",
    create_common_buffer_from_mdl: "CreateCommonBufferFromMdl",
}
