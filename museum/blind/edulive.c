/*
 * edulive: tries the card's live check register once a second and keeps statistics that a
 * monitoring tool may read and clear; the check word is set up anew at each power-up.
 *
 * The bug: on the way to D0 the card is set up before the request has been completed by the bus driver, when the card
 * has no power yet.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_EDULIVE, 0x5d2f1b03, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x03);

typedef struct {
    ULONG Ident, Checks, Failures, PowerUps;
} LIVE_STATS;
#define IOCTL_LIVE_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LIVE_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define R_IDENT  (0x00 / 4)
#define R_LIVE   (0x04 / 4)
#define R_STATUS (0x20 / 4)

typedef struct {
    KIT Kit;
    volatile ULONG *Regs;
    ULONG RegsLen;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK StatLock;
    LIVE_STATS Stats;
    ULONG Word;
} LIVE, *PLIVE;

static VOID NTAPI LiveTick(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PLIVE L = Ctx;
    ULONG got;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    if (!KitTryGate(&L->Kit))
        return;                       /* stopped, asleep or gone */
    KeAcquireSpinLockAtDpcLevel(&L->StatLock);
    L->Word = L->Word * 1664525u + 1013904223u;
    WRITE_REGISTER_ULONG((PULONG)&L->Regs[R_LIVE], L->Word);
    got = READ_REGISTER_ULONG(&L->Regs[R_LIVE]);
    L->Stats.Checks++;
    if (got != ~L->Word)
        L->Stats.Failures++;
    KeReleaseSpinLockFromDpcLevel(&L->StatLock);
    KitUngate(&L->Kit);
}

static VOID LiveUp(PKIT K)
{
    PLIVE L = (PLIVE)K;
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&L->StatLock, &irql);
    WRITE_REGISTER_ULONG((PULONG)&L->Regs[R_STATUS], 0);
    L->Stats.Ident = READ_REGISTER_ULONG(&L->Regs[R_IDENT]);
    L->Stats.PowerUps++;
    L->Word = 0x5A5A0001;
    WRITE_REGISTER_ULONG((PULONG)&L->Regs[R_LIVE], L->Word);
    KeReleaseSpinLock(&L->StatLock, irql);
    due.QuadPart = -10000000;
    KeSetTimerEx(&L->Timer, due, 1000, &L->Dpc);
}
static VOID LiveDown(PKIT K, BOOLEAN Present)
{
    PLIVE L = (PLIVE)K;
    UNREFERENCED_PARAMETER(Present);
    KeCancelTimer(&L->Timer);
    KeFlushQueuedDpcs();
}
static VOID LiveRelease(PKIT K)
{
    PLIVE L = (PLIVE)K;
    if (L->Regs) {
        MmUnmapIoSpace((PVOID)L->Regs, L->RegsLen);
        L->Regs = NULL;
    }
}
static NTSTATUS LiveStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PLIVE L = (PLIVE)K;
    ULONG i;
    for (i = 0; i < Res->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &Res->PartialDescriptors[i];
        if (d->Type != CmResourceTypeMemory || d->u.Memory.Length < 0x1000)
            continue;
        L->RegsLen = 0x1000;
        L->Regs = MmMapIoSpace(d->u.Memory.Start, L->RegsLen, MmNonCached);
        return L->Regs ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_DEVICE_CONFIGURATION_ERROR;
}

static NTSTATUS LiveHandle(PKIT K, PIRP Irp)
{
    PLIVE L = (PLIVE)K;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LIVE_GET:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LIVE_STATS)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&L->StatLock, &irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &L->Stats, sizeof(LIVE_STATS));
        KeReleaseSpinLock(&L->StatLock, irql);
        info = sizeof(LIVE_STATS);
        break;
    case IOCTL_LIVE_CLEAR:
        KeAcquireSpinLock(&L->StatLock, &irql);
        L->Stats.Checks = L->Stats.Failures = 0;
        KeReleaseSpinLock(&L->StatLock, irql);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    KitFinish(K, Irp, st, info);
    return st;
}
static VOID LivePurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(K);
    UNREFERENCED_PARAMETER(File);
    UNREFERENCED_PARAMETER(Status);
}

static const KIT_OPS CardOps = { LiveStart, LiveUp, LiveDown, LiveRelease, LiveHandle, LivePurge };

/* The card wakes: set it up and let requests in. */
static VOID LiveWake(PLIVE L)
{
    POWER_STATE ps;
    ps.DeviceState = PowerDeviceD0;
    L->Kit.DState = PowerDeviceD0;
    PoSetPowerState(L->Kit.Self, DevicePowerState, ps);
    if (L->Kit.Working)
        LiveUp(&L->Kit);
    KitResume(&L->Kit, HOLD_POWER);
}
#ifdef FIXED
static NTSTATUS NTAPI LiveWoken(PDEVICE_OBJECT D, PIRP Irp, PVOID Ctx)
{
    PLIVE L = Ctx;
    UNREFERENCED_PARAMETER(D);
    if (NT_SUCCESS(Irp->IoStatus.Status))
        LiveWake(L);
    IoReleaseRemoveLock(&L->Kit.RemoveLock, Irp);
    return STATUS_SUCCESS;
}
#endif

static NTSTATUS NTAPI LivePower(PDEVICE_OBJECT D, PIRP Irp)
{
    PLIVE L = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st;

    if (sp->MinorFunction != IRP_MN_SET_POWER || sp->Parameters.Power.Type != DevicePowerState ||
        sp->Parameters.Power.State.DeviceState != PowerDeviceD0 || L->Kit.DState == PowerDeviceD0)
        return KitPower(D, Irp);

    st = IoAcquireRemoveLock(&L->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(st)) {
        Irp->IoStatus.Status = st;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return st;
    }
#ifdef FIXED
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, LiveWoken, L, TRUE, TRUE, TRUE);
    PoCallDriver(L->Kit.Lower, Irp);
    return STATUS_PENDING;
#else
    LiveWake(L);
    IoSkipCurrentIrpStackLocation(Irp);
    st = PoCallDriver(L->Kit.Lower, Irp);
    IoReleaseRemoveLock(&L->Kit.RemoveLock, Irp);
    return st;
#endif
}

static NTSTATUS NTAPI LiveAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    PLIVE L;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(LIVE), &GUID_EDULIVE, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    L = (PLIVE)K;
    KeInitializeSpinLock(&L->StatLock);
    KeInitializeTimerEx(&L->Timer, NotificationTimer);
    KeInitializeDpc(&L->Dpc, LiveTick, L);
    return KitAttach(K);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitEntry(Drv, LiveAdd);
    Drv->MajorFunction[IRP_MJ_POWER] = LivePower;
    return STATUS_SUCCESS;
}
