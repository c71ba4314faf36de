//! Every exported function, one line each, sorted by name: its arity, its IRQL contract, its service.

use super::arguments::{IntoResult, exports};
use crate::{ex, ke, ldr, mm};

exports! { FUNCTIONS:
    : ExAllocatePool(2) @ 0..=2 => mm::pool_exports::allocate_pool;
    : ExAllocatePool2(3) @ 0..=2 => mm::pool_exports::allocate_pool2;
    : ExAllocatePoolWithQuota(2) @ 0..=2 => mm::pool_exports::allocate_with_quota;
    : ExAllocatePoolWithQuotaTag(3) @ 0..=2 => mm::pool_exports::allocate_with_quota_tag;
    : ExAllocatePoolWithTag(3) @ 0..=2 => mm::pool_exports::allocate_with_tag;
    : ExAllocatePoolWithTagPriority(4) @ 0..=2 => mm::pool_exports::allocate_with_tag_priority;
    : ExFreePool(1) @ 0..=2 => mm::pool_exports::free_pool;
    : ExFreePoolWithTag(2) @ 0..=2 => mm::pool_exports::free_with_tag;
    : ExRaiseAccessViolation(0) @ 0..=1 => ex::exception::raise_access_violation;
    : ExRaiseDatatypeMisalignment(0) @ 0..=1 => ex::exception::raise_datatype_misalignment;
    : ExRaiseStatus(1) @ 0..=1 => ex::exception::raise_status;
    : IoAllocateMdl(5) @ 0..=2 => mm::mdl::io_allocate;
    : IoBuildPartialMdl(4) @ 0..=2 => mm::mdl::build_partial;
    : IoFreeMdl(1) @ 0..=2 => mm::mdl::io_free;
    : KeClearEvent(1) @ 0..=2 => ke::event::clear;
    : KeSetEvent(3) @ 0..=2 => ke::event::set;
    : MmAllocateContiguousMemory(2) @ 0..=2 => mm::contiguous::allocate_contiguous;
    : MmAllocateContiguousMemorySpecifyCache(5) @ 0..=2 => mm::contiguous::allocate_specify_cache;
    : MmAllocateContiguousMemorySpecifyCacheNode(6) @ 0..=2 => mm::contiguous::allocate_specify_cache_node;
    : MmAllocateNonCachedMemory(1) @ 0..=1 => mm::contiguous::allocate_noncached;
    : MmAllocatePagesForMdl(4) @ 0..=2 => mm::mdl_pages::allocate;
    : MmAllocatePagesForMdlEx(6) @ 0..=2 => mm::mdl_pages::allocate_ex;
    : MmBuildMdlForNonPagedPool(1) @ 0..=2 => mm::mdl::build_for_nonpaged_pool;
    : MmFreeContiguousMemory(1) @ 0..=2 => mm::contiguous::free;
    : MmFreeContiguousMemorySpecifyCache(3) @ 0..=2 => mm::contiguous::free_specify_cache;
    : MmFreeNonCachedMemory(2) @ 0..=1 => mm::contiguous::free_noncached;
    : MmFreePagesFromMdl(1) @ 0..=2 => mm::mdl_pages::free;
    : MmGetPhysicalAddress(1) @ 0..=15 => mm::paging::physical_address;
    : MmGetSystemRoutineAddress(1) @ 0..=0 => ldr::system_routine_address;
    : MmIsAddressValid(1) @ 0..=2 => mm::paging::is_address_valid;
    : MmLockPagableDataSection(1) @ 0..=1 => mm::paging::lock_section;
    : MmLockPagableSectionByHandle(1) @ 0..=1 => mm::paging::lock_by_handle;
    : MmMapIoSpace(3) @ 0..=2 => mm::io_space::map;
    : MmMapIoSpaceEx(3) @ 0..=2 => mm::io_space::map_ex;
    : MmMapLockedPages(2) @ 0..=2 => mm::mdl_map::map_locked_pages;
    : MmMapLockedPagesSpecifyCache(6) @ 0..=2 => mm::mdl_map::map_locked_pages_specify_cache;
    : MmPageEntireDriver(1) @ 0..=1 => mm::paging::page_entire_driver;
    : MmProbeAndLockPages(3) @ 0..=2 => mm::mdl_lock::probe_and_lock;
    : MmQuerySystemSize(0) @ 0..=15 => mm::paging::query_system_size;
    : MmResetDriverPaging(1) @ 0..=1 => mm::paging::reset_driver_paging;
    : MmSizeOfMdl(2) @ 0..=15 => mm::mdl::size_of_mdl;
    : MmUnlockPagableImageSection(1) @ 0..=1 => mm::paging::unlock_section;
    : MmUnlockPages(1) @ 0..=2 => mm::mdl_lock::unlock;
    : MmUnmapIoSpace(2) @ 0..=2 => mm::io_space::unmap;
    : MmUnmapLockedPages(2) @ 0..=2 => mm::mdl_map::unmap_locked_pages;
    : ProbeForRead(3) @ 0..=1 => ex::exception::probe_for_read;
    : ProbeForWrite(3) @ 0..=1 => ex::exception::probe_for_write;
}
