/*
 * catkin: a card with a slow analogue input. The driver samples it fifty times a second into a ring, of which programs read the newest values. How many the ring holds
 * stands in the device's key as "Depth"; without it there are 256, and never more than 4096.
 *
 * The bug: the depth from the registry has an upper limit only. With a depth of zero the ring is a block of no bytes, and the first sample divides by zero.
 *
 * Device: PCI\VEN_19B2&DEV_0310
 * Rule: divide-error, pool-zero-bytes
 * Needs: registry
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID CatkinFace = { 0x5d0c1c46, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x14, 0x06 } };

#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E9, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8EA, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_CONTROL 0x00
#define   CONVERT     1u                      /* goes on by itself */
#define REG_SAMPLE  0x04

#define PERIOD_MS     20
#define DEFAULT_DEPTH 256
#define MOST_DEPTH    4096

typedef struct _STATE {
    ULONG Depth;
    ULONG Held;
    ULONG Samples;
} STATE;

typedef struct _CATKIN {
    CRAFT Craft;
    KSPIN_LOCK Lock;                          /* of the ring and the state */
    ULONG *Ring;
    STATE State;
    KTIMER Tick;
    KDPC TickDpc;
} CATKIN;

static VOID NTAPI Sample(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    CATKIN *c = context;
    ULONG value = Rd(&c->Craft.Window[0], REG_SAMPLE);
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    c->Ring[c->State.Samples++ % c->State.Depth] = value;
    if (c->State.Held < c->State.Depth)
        c->State.Held++;
    if (c->State.Samples == c->State.Depth * 1000)
        c->State.Samples = 0;                 /* where the ring begins anew, too */
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
}

static ULONG ReadDepth(CRAFT *s)
{
    UCHAR bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)] __attribute__((aligned(8)));
    PKEY_VALUE_PARTIAL_INFORMATION info = (PVOID)bytes;
    ULONG depth = DEFAULT_DEPTH, length;
    UNICODE_STRING name;
    NTSTATUS status;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(s->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return depth;
    RtlInitUnicodeString(&name, L"Depth");
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, info, sizeof bytes, &length);
    ZwClose(key);
    if (NT_SUCCESS(status) && info->Type == REG_DWORD && info->DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&depth, info->Data, sizeof depth);
        if (depth > MOST_DEPTH)
            depth = MOST_DEPTH;
#ifdef FIXED
        if (depth == 0)
            depth = DEFAULT_DEPTH;
#endif
    }
    return depth;
}

static NTSTATUS CatkinServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    CATKIN *c = (CATKIN *)s;
    ULONG *to = irp->AssociatedIrp.SystemBuffer;
    ULONG words, n, at;
    KIRQL irql;

    if (sp->MajorFunction == IRP_MJ_READ) {
        words = sp->Parameters.Read.Length / sizeof(ULONG);
        if (words == 0)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&c->Lock, &irql);
        if (words > c->State.Held)
            words = c->State.Held;
        at = c->State.Samples % c->State.Depth;
        for (n = 0; n < words; n++) {         /* the newest first */
            at = (at == 0 ? c->State.Depth : at) - 1;
            to[n] = c->Ring[at];
        }
        KeReleaseSpinLock(&c->Lock, irql);
        irp->IoStatus.Information = words * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&c->Lock, &irql);
        *(STATE *)irp->AssociatedIrp.SystemBuffer = c->State;
        KeReleaseSpinLock(&c->Lock, irql);
        irp->IoStatus.Information = sizeof(STATE);
        return STATUS_SUCCESS;
    case IOCTL_CLEAR:
        KeAcquireSpinLock(&c->Lock, &irql);
        c->State.Held = 0;
        KeReleaseSpinLock(&c->Lock, irql);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS CatkinStart(CRAFT *s)
{
    CATKIN *c = (CATKIN *)s;
    ULONG depth = ReadDepth(s);
    c->Ring = ExAllocatePoolWithTag(NonPagedPoolNx, depth * sizeof(ULONG), WW_TAG);
    if (!c->Ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(c->Ring, depth * sizeof(ULONG));
    RtlZeroMemory(&c->State, sizeof c->State);
    c->State.Depth = depth;
    return STATUS_SUCCESS;
}

static void CatkinStop(CRAFT *s)
{
    CATKIN *c = (CATKIN *)s;
    ExFreePoolWithTag(c->Ring, WW_TAG);
    c->Ring = NULL;
}

static void CatkinArm(CRAFT *s)
{
    Wr(&s->Window[0], REG_CONTROL, CONVERT);
}

static void CatkinRun(CRAFT *s)
{
    CATKIN *c = (CATKIN *)s;
    LARGE_INTEGER first;
    first.QuadPart = -PERIOD_MS * 10000ll;
    KeSetTimerEx(&c->Tick, first, PERIOD_MS, &c->TickDpc);
}

static void CatkinDrain(CRAFT *s)
{
    KeCancelTimer(&((CATKIN *)s)->Tick);
    KeFlushQueuedDpcs();
}

static void CatkinDisarm(CRAFT *s)
{
    Wr(&s->Window[0], REG_CONTROL, 0);
}

static NTSTATUS CatkinOutfit(CRAFT *s)
{
    CATKIN *c = (CATKIN *)s;
    KeInitializeSpinLock(&c->Lock);
    KeInitializeTimer(&c->Tick);
    KeInitializeDpc(&c->TickDpc, Sample, c);
    return STATUS_SUCCESS;
}

static const PLAN CatkinPlan = {
    .Size = sizeof(CATKIN),
    .Face = &CatkinFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 8 },
    .Outfit = CatkinOutfit,
    .Start = CatkinStart,
    .Stop = CatkinStop,
    .Arm = CatkinArm,
    .Run = CatkinRun,
    .Drain = CatkinDrain,
    .Disarm = CatkinDisarm,
    .Serve = CatkinServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &CatkinPlan);
}
