/*
 * avocet: time slots for programs that take turns: a timer goes from slot to slot every 20 ms, and a request for a slot ends when its
 * turn comes. How many slots there are, up to 16, is a value in the device's key of the registry; without it there are eight.
 *
 * The bug: the number of slots gets its default only if the key can be opened. If it cannot there are no slots at all, and the
 * timer's DPC divides by their number.
 *
 * Device: Root\AVOCET
 * Rule: divide-error
 * Needs: failure, registry
 */
#include "../include/site_frame.h"

DEFINE_GUID(GUID_AVOCET, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x0D);

#define IOCTL_AVOCET_TURN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAC1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_AVOCET_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAC2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_SLOTS  16u
#define USUAL_SLOTS 8u
#define SLOT_MS     20

typedef struct STATE {
    ULONG Slots;
    ULONG Slot;                 /* whose turn it is */
    ULONG Turns;                /* of all slots, since the device was started */
} STATE;

typedef struct AVOCET {
    SITE Site;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;            /* guards what is below, and the lanes */
    STATE State;
    LANE Turns[MOST_SLOTS];
} AVOCET;

static VOID NTAPI AvocetTurn(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    AVOCET *avocet = context;
    STATE *state = &avocet->State;
    LIST_ENTRY done;
    ULONG turns;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&avocet->Lock);
    turns = ++state->Turns;
    state->Slot = turns % state->Slots;
    while ((irp = LaneTakeLocked(&avocet->Turns[state->Slot], NULL)) != NULL)
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLockFromDpcLevel(&avocet->Lock);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = turns;
        Finish(&avocet->Site, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

/* What the registry says of the number of slots. */
static ULONG AvocetSlots(AVOCET *avocet)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Value;
        UCHAR Bytes[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } answer;
    UNICODE_STRING name;
    ULONG slots = 0, got;
    NTSTATUS status;
    HANDLE key;

#ifdef FIXED
    slots = USUAL_SLOTS;
#endif
    status = IoOpenDeviceRegistryKey(avocet->Site.Physical, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        return slots;
    RtlInitUnicodeString(&name, L"Slots");
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &answer, sizeof answer, &got);
    if (NT_SUCCESS(status) && answer.Value.Type == REG_DWORD && answer.Value.DataLength == sizeof(ULONG))
        RtlCopyMemory(&slots, answer.Value.Data, sizeof(ULONG));
    ZwClose(key);
    if (slots == 0 || slots > MOST_SLOTS)
        slots = USUAL_SLOTS;
    return slots;
}

static VOID AvocetGo(AVOCET *avocet)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * SLOT_MS;
    KeSetTimerEx(&avocet->Timer, due, SLOT_MS, &avocet->Dpc);
}

static VOID AvocetHalt(AVOCET *avocet)
{
    KeCancelTimer(&avocet->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS AvocetServe(SITE *site, ASK *ask)
{
    AVOCET *avocet = (AVOCET *)site;
    BOOLEAN there;
    ULONG slot;
    KIRQL irql;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_AVOCET_TURN:
        if (ask->In < sizeof(ULONG) || ask->Out < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        slot = *(PULONG)ask->Buffer;
        KeAcquireSpinLock(&avocet->Lock, &irql);
        if (slot >= avocet->State.Slots) {
            KeReleaseSpinLock(&avocet->Lock, irql);
            return Finish(site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
        }
        there = LanePutLocked(&avocet->Turns[slot], ask->Irp);
        KeReleaseSpinLock(&avocet->Lock, irql);
        if (!there)
            Finish(site, ask->Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    case IOCTL_AVOCET_STATE:
        if (ask->Out < sizeof(STATE))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&avocet->Lock, &irql);
        RtlCopyMemory(ask->Buffer, &avocet->State, sizeof(STATE));
        KeReleaseSpinLock(&avocet->Lock, irql);
        return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(STATE));
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS AvocetBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    AVOCET *avocet = (AVOCET *)site;
    ULONG slots = AvocetSlots(avocet), i;
    KIRQL irql;

    UNREFERENCED_PARAMETER(resources);
    KeAcquireSpinLock(&avocet->Lock, &irql);
    RtlZeroMemory(&avocet->State, sizeof avocet->State);
    avocet->State.Slots = slots;
    KeReleaseSpinLock(&avocet->Lock, irql);
    /* after a stop there may be fewer than before */
    for (i = slots; i < MOST_SLOTS; ++i)
        LaneSweep(&avocet->Turns[i], NULL, STATUS_INVALID_PARAMETER);
    AvocetGo(avocet);
    return STATUS_SUCCESS;
}

static VOID AvocetEnd(SITE *site, BOOLEAN live)
{
    UNREFERENCED_PARAMETER(live);
    AvocetHalt((AVOCET *)site);
}

static VOID AvocetSleep(SITE *site)
{
    AvocetHalt((AVOCET *)site);
}

static VOID AvocetWake(SITE *site)
{
    AvocetGo((AVOCET *)site);
}

static VOID AvocetLeave(SITE *site, PFILE_OBJECT file)
{
    AVOCET *avocet = (AVOCET *)site;
    ULONG i;

    for (i = 0; i < MOST_SLOTS; ++i)
        LaneSweep(&avocet->Turns[i], file, STATUS_CANCELLED);
}

static VOID AvocetDrop(SITE *site, NTSTATUS status)
{
    AVOCET *avocet = (AVOCET *)site;
    ULONG i;

    for (i = 0; i < MOST_SLOTS; ++i)
        LaneSweep(&avocet->Turns[i], NULL, status);
}

static NTSTATUS AvocetBorn(SITE *site)
{
    AVOCET *avocet = (AVOCET *)site;
    ULONG i;

    KeInitializeSpinLock(&avocet->Lock);
    KeInitializeTimer(&avocet->Timer);
    KeInitializeDpc(&avocet->Dpc, AvocetTurn, avocet);
    for (i = 0; i < MOST_SLOTS; ++i)
        LaneInit(&avocet->Turns[i], site, &avocet->Lock);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(AVOCET),
    .Interface = &GUID_AVOCET,
    .Born = AvocetBorn,
    .Begin = AvocetBegin,
    .End = AvocetEnd,
    .Sleep = AvocetSleep,
    .Wake = AvocetWake,
    .Serve = AvocetServe,
    .Leave = AvocetLeave,
    .Drop = AvocetDrop,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}
