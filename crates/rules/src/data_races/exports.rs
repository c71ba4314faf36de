//! Exports by which flows of control are ordered, where no other event tells it.

use std::sync::OnceLock;

use kernel::exports;

/// What a call of an export orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Nothing.
    None,
    /// All such calls for the same first argument: the kernel has a lock for it, or reads and sets its state in one step.
    First,
    /// The same for the second and the third argument.
    Others,
    /// The routines and objects among its arguments are given to the kernel, which calls the one for the other.
    Gives,
    /// Both.
    Queues,
    /// A DPC is queued: if that is below DISPATCH_LEVEL, and for this processor, it is over when the call returns.
    InsertsDpc,
    /// The DPC runs on one processor from now on, and so not beside others that do.
    TargetsDpc,
    /// When it returns, all DPCs that were queued are over.
    FlushesDpcs,
    /// When it returns, the routine has run on all processors.
    Interprocessor,
    /// When it returns, callbacks of the driver's that ran are over.
    EndsCallbacks,
}

const ORDERS: &[(&str, Order)] = &[
    ("CmUnRegisterCallback", Order::EndsCallbacks),
    ("ExCancelTimer", Order::First),
    ("ExDeleteTimer", Order::EndsCallbacks),
    ("ExInterlockedAddLargeInteger", Order::First),
    ("ExInterlockedAddUlong", Order::First),
    ("ExInterlockedInsertHeadList", Order::Others),
    ("ExInterlockedInsertTailList", Order::Others),
    ("ExInterlockedPopEntryList", Order::Others),
    ("ExInterlockedPushEntryList", Order::Others),
    ("ExInterlockedRemoveHeadList", Order::Others),
    ("ExSetTimer", Order::Gives),
    ("ExUnregisterCallback", Order::EndsCallbacks),
    ("HalpAllocateAdapterChannel", Order::Queues),
    ("HalpAllocateAdapterChannelEx", Order::Queues),
    ("HalpFreeAdapterChannel", Order::First),
    ("IoAllocateAdapterChannel", Order::Queues),
    ("IoAllocateController", Order::Queues),
    ("IoFreeAdapterChannel", Order::First),
    ("IoFreeController", Order::Queues),
    ("IoInitializeTimer", Order::Gives),
    ("IoQueueWorkItem", Order::Gives),
    ("IoStartNextPacket", Order::First),
    ("IoStartNextPacketByKey", Order::First),
    ("IoStartPacket", Order::First),
    ("IoStartTimer", Order::Gives),
    ("IoUnregisterPlugPlayNotification", Order::EndsCallbacks),
    ("IoUnregisterPlugPlayNotificationEx", Order::EndsCallbacks),
    ("KeCancelTimer", Order::First),
    ("KeClearEvent", Order::First),
    ("KeFlushQueuedDpcs", Order::FlushesDpcs),
    ("KeInitializeDpc", Order::Gives),
    ("KeInitializeThreadedDpc", Order::Gives),
    ("KeInsertByKeyDeviceQueue", Order::First),
    ("KeInsertDeviceQueue", Order::First),
    ("KeInsertQueueDpc", Order::InsertsDpc),
    ("KeIpiGenericCall", Order::Interprocessor),
    ("KeReadStateEvent", Order::First),
    ("KeReadStateMutex", Order::First),
    ("KeReadStateSemaphore", Order::First),
    ("KeReadStateTimer", Order::First),
    ("KeRemoveByKeyDeviceQueue", Order::First),
    ("KeRemoveDeviceQueue", Order::First),
    ("KeRemoveEntryDeviceQueue", Order::First),
    ("KeRemoveQueueDpc", Order::First),
    ("KeResetEvent", Order::First),
    ("KeSetTargetProcessorDpc", Order::TargetsDpc),
    ("KeSetTargetProcessorDpcEx", Order::TargetsDpc),
    ("KeSetTimer", Order::First),
    ("KeSetTimerEx", Order::First),
    ("KeSetCoalescableTimer", Order::First),
    ("ObUnRegisterCallbacks", Order::EndsCallbacks),
    ("PoUnregisterPowerSettingCallback", Order::EndsCallbacks),
    ("RtlRunOnceBeginInitialize", Order::First),
    ("RtlRunOnceComplete", Order::First),
    ("RtlRunOnceExecuteOnce", Order::First),
];

/// What calls of this row order.
pub(super) fn order(export: u32) -> Order {
    static BY_ROW: OnceLock<Vec<Order>> = OnceLock::new();
    let by_row = BY_ROW.get_or_init(|| {
        let named = |name: &str| ORDERS.iter().find(|(known, _)| *known == name).map(|(_, order)| *order);
        (0..).map_while(exports::row).map(|row| named(row.name).unwrap_or(Order::None)).collect()
    });
    by_row.get(export as usize).copied().unwrap_or(Order::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_export_is_one() {
        let is_named = |name: &str| (0..).map_while(exports::row).any(|row| row.name == name);
        let missing: Vec<&str> =
            ORDERS.iter().map(|(name, _)| *name).filter(|name| !is_named(name)).collect();
        assert_eq!(missing, [""; 0]);
    }
}
