/*
 * relaybd: switches the relays of an in-house relay board, one request after another through
 * StartIo; after the relays' settling time of 20 ms the contacts are read back and returned.
 * The card (BAR0, memory): 0x00 ident 0x52454C42; 0x04 number of relays fitted (1..16);
 * 0x08 coils; 0x0C contacts.
 *
 * The bug: StartIo completes a request for relays that are not fitted without starting the next packet, so that the
 * device queue stays busy and all further requests wait for ever.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: next-packet-not-started
 * Needs: ioctl
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_RELAYBD, 0x5d2f1b08, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x08);

typedef struct { ULONG Mask, Value; } RELAY_SET;
#define IOCTL_RELAY_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define R_IDENT    0
#define R_FITTED   1
#define R_COILS    2
#define R_CONTACTS 3
#define REGS_LEN   0x10u
#define IDENT      0x52454C42u

typedef struct {
    KIT Kit;
    volatile ULONG *Regs;
    ULONG Fitted;              /* mask */
    ULONG Coils;               /* what the coils ought to be */
    KTIMER Settle;
    KDPC SettleDpc;
} RELAY, *PRELAY;

/* Ends the current request and begins the next. */
static VOID RelayEnd(PRELAY R, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    IoStartNextPacket(R->Kit.Self, FALSE);
    KitFinish(&R->Kit, Irp, Status, Info);
}

static VOID NTAPI RelayStartIo(PDEVICE_OBJECT D, PIRP Irp)
{
    PRELAY R = D->DeviceExtension;
    RELAY_SET *rq = Irp->AssociatedIrp.SystemBuffer;
    LARGE_INTEGER due;

    if (!R->Kit.Alive) {
        RelayEnd(R, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return;
    }
    if (rq->Mask & ~R->Fitted) {
#ifdef FIXED
        RelayEnd(R, Irp, STATUS_INVALID_PARAMETER, 0);
#else
        KitFinish(&R->Kit, Irp, STATUS_INVALID_PARAMETER, 0);
#endif
        return;
    }
    R->Coils = (R->Coils & ~rq->Mask) | (rq->Value & rq->Mask);
    WRITE_REGISTER_ULONG((PULONG)&R->Regs[R_COILS], R->Coils);
    due.QuadPart = -200000;
    KeSetTimer(&R->Settle, due, &R->SettleDpc);
}

static VOID NTAPI RelaySettled(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PRELAY R = Ctx;
    PIRP irp = R->Kit.Self->CurrentIrp;
    ULONG contacts = READ_REGISTER_ULONG(&R->Regs[R_CONTACTS]);
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    if (contacts == 0xFFFFFFFF) {
        RelayEnd(R, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return;
    }
    *(PULONG)irp->AssociatedIrp.SystemBuffer = contacts & R->Fitted;
    RelayEnd(R, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS RelayHandle(PKIT K, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = STATUS_SUCCESS;

    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_RELAY_SET)
        st = STATUS_INVALID_DEVICE_REQUEST;
    else if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(RELAY_SET))
        st = STATUS_INFO_LENGTH_MISMATCH;
    else if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        st = STATUS_BUFFER_TOO_SMALL;
    if (!NT_SUCCESS(st)) {
        KitFinish(K, Irp, st, 0);
        return st;
    }
    /* The request may end in IoStartPacket, which goes on with the device object. */
    st = IoAcquireRemoveLock(&K->RemoveLock, K);
    if (!NT_SUCCESS(st)) {
        KitFinish(K, Irp, st, 0);
        return st;
    }
    IoMarkIrpPending(Irp);
    IoStartPacket(K->Self, Irp, NULL, NULL);
    IoReleaseRemoveLock(&K->RemoveLock, K);
    return STATUS_PENDING;
}
/* Requests end by themselves, each within 20 ms. */
static VOID RelayPurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(K);
    UNREFERENCED_PARAMETER(File);
    UNREFERENCED_PARAMETER(Status);
}

static VOID RelayUp(PKIT K)
{
    PRELAY R = (PRELAY)K;
    WRITE_REGISTER_ULONG((PULONG)&R->Regs[R_COILS], R->Coils);
}
static VOID RelayDown(PKIT K, BOOLEAN Present)
{
    PRELAY R = (PRELAY)K;
    KeFlushQueuedDpcs();
    if (Present)
        WRITE_REGISTER_ULONG((PULONG)&R->Regs[R_COILS], 0);
}
static VOID RelayRelease(PKIT K)
{
    PRELAY R = (PRELAY)K;
    if (R->Regs) {
        MmUnmapIoSpace((PVOID)R->Regs, REGS_LEN);
        R->Regs = NULL;
    }
}
static NTSTATUS RelayStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PRELAY R = (PRELAY)K;
    ULONG i, n;

    for (i = 0; i < Res->Count; i++)
        if (Res->PartialDescriptors[i].Type == CmResourceTypeMemory)
            break;
    if (i == Res->Count || Res->PartialDescriptors[i].u.Memory.Length < REGS_LEN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    R->Regs = MmMapIoSpace(Res->PartialDescriptors[i].u.Memory.Start, REGS_LEN, MmNonCached);
    if (!R->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    n = READ_REGISTER_ULONG(&R->Regs[R_FITTED]);
    if (READ_REGISTER_ULONG(&R->Regs[R_IDENT]) != IDENT || n == 0 || n > 16)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    R->Fitted = (1u << n) - 1;
    R->Coils &= R->Fitted;
    return STATUS_SUCCESS;
}

static const KIT_OPS CardOps = { RelayStart, RelayUp, RelayDown, RelayRelease, RelayHandle, RelayPurge };

static NTSTATUS NTAPI RelayAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    PRELAY R;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(RELAY), &GUID_RELAYBD, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    R = (PRELAY)K;
    KeInitializeTimer(&R->Settle);
    KeInitializeDpc(&R->SettleDpc, RelaySettled, R);
    IoSetStartIoAttributes(K->Self, TRUE, TRUE);    /* no recursion, no cancel routines */
    return KitAttach(K);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitEntry(Drv, RelayAdd);
    Drv->DriverStartIo = RelayStartIo;
    return STATUS_SUCCESS;
}
