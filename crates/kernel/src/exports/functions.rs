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
    : KeClearEvent(1) @ 0..=2 => ke::event::clear;
    : KeSetEvent(3) @ 0..=2 => ke::event::set;
    : MmGetSystemRoutineAddress(1) @ 0..=0 => ldr::system_routine_address;
    : ProbeForRead(3) @ 0..=1 => ex::exception::probe_for_read;
    : ProbeForWrite(3) @ 0..=1 => ex::exception::probe_for_write;
}
