/*
 * cellgauge: a virtual battery gauge that shows its state and the charge of the last 64 minutes
 * by WMI; a test program drains or charges it by writes of one byte (percent).
 *
 * The bug: the query for the history block does not look at the room in the consumer's buffer and writes 256 bytes
 * into it, whatever its size.
 *
 * Device: ROOT\CELLGAUGE
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include "../include/plain_pnp.h"
#include <wmistr.h>
#include <ddk/wmilib.h>

DEFINE_GUID(GUID_CELLGAUGE, 0x8d0c2e02, 0x15b2, 0x4a7f, 0xa1, 0x44, 0x60, 0x0d, 0x93, 0x2b, 0x17, 0x02);
DEFINE_GUID(GUID_CELL_STATE, 0x8d0c2e12, 0x15b2, 0x4a7f, 0xa1, 0x44, 0x60, 0x0d, 0x93, 0x2b, 0x17, 0x02);
DEFINE_GUID(GUID_CELL_HISTORY, 0x8d0c2e22, 0x15b2, 0x4a7f, 0xa1, 0x44, 0x60, 0x0d, 0x93, 0x2b, 0x17, 0x02);

#define MINUTES 64
typedef struct { ULONG Percent, Minutes, Writes; } CELL_STATE;

typedef struct {
    SOFT Soft;
    WMILIB_CONTEXT Wmi;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;           /* the fields below */
    CELL_STATE State;
    ULONG History[MINUTES];
} CELL, *PCELL;

static UNICODE_STRING SavedPath;
static WMIGUIDREGINFO Guids[] = {
    { &GUID_CELL_STATE, 1, 0 },
    { &GUID_CELL_HISTORY, 1, 0 },
};

static NTSTATUS NTAPI CellRegInfo(PDEVICE_OBJECT D, PULONG Flags, PUNICODE_STRING Name,
                                  PUNICODE_STRING *Path, PUNICODE_STRING Mof, PDEVICE_OBJECT *Pdo)
{
    PCELL C = D->DeviceExtension;
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Mof);
    *Flags = WMIREG_FLAG_INSTANCE_PDO;
    *Path = &SavedPath;
    *Pdo = C->Soft.Pdo;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI CellQuery(PDEVICE_OBJECT D, PIRP Irp, ULONG GuidIndex, ULONG Instance, ULONG Count,
                                PULONG Lengths, ULONG Avail, PUCHAR Buffer)
{
    PCELL C = D->DeviceExtension;
    ULONG need = GuidIndex == 0 ? sizeof(CELL_STATE) : sizeof(C->History);
    KIRQL irql;

    if (GuidIndex > 1)
        return WmiCompleteRequest(D, Irp, STATUS_WMI_GUID_NOT_FOUND, 0, IO_NO_INCREMENT);
    if (Instance != 0 || Count != 1)
        return WmiCompleteRequest(D, Irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0, IO_NO_INCREMENT);
#ifdef FIXED
    if (Lengths == NULL || Avail < need)
#else
    if (Lengths == NULL || (GuidIndex == 0 && Avail < need))
#endif
        return WmiCompleteRequest(D, Irp, STATUS_BUFFER_TOO_SMALL, need, IO_NO_INCREMENT);
    KeAcquireSpinLock(&C->Lock, &irql);
    RtlCopyMemory(Buffer, GuidIndex == 0 ? (PVOID)&C->State : (PVOID)C->History, need);
    KeReleaseSpinLock(&C->Lock, irql);
    Lengths[0] = need;
    return WmiCompleteRequest(D, Irp, STATUS_SUCCESS, need, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI CellWmi(PDEVICE_OBJECT D, PIRP Irp)
{
    PCELL C = D->DeviceExtension;
    SYSCTL_IRP_DISPOSITION what;
    NTSTATUS st = IoAcquireRemoveLock(&C->Soft.RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return SoftDone(Irp, st, 0);
    st = WmiSystemControl(&C->Wmi, D, Irp, &what);
    switch (what) {
    case IrpProcessed:
        break;
    case IrpNotCompleted:
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        break;
    default:
        IoSkipCurrentIrpStackLocation(Irp);
        st = IoCallDriver(C->Soft.Lower, Irp);
        break;
    }
    IoReleaseRemoveLock(&C->Soft.RemoveLock, Irp);
    return st;
}

static VOID NTAPI CellMinute(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PCELL C = Ctx;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&C->Lock);
    C->History[C->State.Minutes++ % MINUTES] = C->State.Percent;
    KeReleaseSpinLockFromDpcLevel(&C->Lock);
}

static NTSTATUS SoftStart(PSOFT S)
{
    PCELL C = (PCELL)S;
    LARGE_INTEGER due;
    NTSTATUS st = IoWMIRegistrationControl(S->Self, WMIREG_ACTION_REGISTER);
    if (!NT_SUCCESS(st))
        return st;
    due.QuadPart = -600000000;
    KeSetTimerEx(&C->Timer, due, 60000, &C->Dpc);
    return STATUS_SUCCESS;
}
static VOID SoftStop(PSOFT S)
{
    PCELL C = (PCELL)S;
    IoWMIRegistrationControl(S->Self, WMIREG_ACTION_DEREGISTER);
    KeCancelTimer(&C->Timer);
    KeFlushQueuedDpcs();
}
static VOID SoftFinal(PSOFT S)
{
    UNREFERENCED_PARAMETER(S);
}

static NTSTATUS NTAPI CellOpenClose(PDEVICE_OBJECT D, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && !SoftOpenable(D->DeviceExtension))
        return SoftDone(Irp, STATUS_DELETE_PENDING, 0);
    return SoftDone(Irp, STATUS_SUCCESS, 0);
}
static NTSTATUS NTAPI CellWrite(PDEVICE_OBJECT D, PIRP Irp)
{
    PCELL C = D->DeviceExtension;
    PUCHAR p = Irp->AssociatedIrp.SystemBuffer;
    ULONG n = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    KIRQL irql;
    NTSTATUS st = IoAcquireRemoveLock(&C->Soft.RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return SoftDone(Irp, st, 0);
    if (C->Soft.Stopped)
        st = STATUS_DEVICE_NOT_CONNECTED;
    else if (n != 1 || p[0] > 100)
        st = STATUS_INVALID_PARAMETER;
    else {
        KeAcquireSpinLock(&C->Lock, &irql);
        C->State.Percent = p[0];
        C->State.Writes++;
        KeReleaseSpinLock(&C->Lock, irql);
    }
    SoftDone(Irp, st, NT_SUCCESS(st) ? 1 : 0);
    IoReleaseRemoveLock(&C->Soft.RemoveLock, Irp);
    return st;
}

static NTSTATUS NTAPI CellAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PSOFT S;
    PCELL C;
    NTSTATUS st = SoftCreate(Drv, Pdo, sizeof(CELL), &GUID_CELLGAUGE, &S);
    if (!NT_SUCCESS(st))
        return st;
    C = (PCELL)S;
    C->Wmi.GuidCount = 2;
    C->Wmi.GuidList = Guids;
    C->Wmi.QueryWmiRegInfo = CellRegInfo;
    C->Wmi.QueryWmiDataBlock = CellQuery;
    C->State.Percent = 100;
    KeInitializeSpinLock(&C->Lock);
    KeInitializeTimerEx(&C->Timer, NotificationTimer);
    KeInitializeDpc(&C->Dpc, CellMinute, C);
    return SoftAttach(S, DO_BUFFERED_IO);
}
static VOID NTAPI CellUnload(PDRIVER_OBJECT Drv)
{
    UNREFERENCED_PARAMETER(Drv);
    ExFreePoolWithTag(SavedPath.Buffer, 'lleC');
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    SavedPath.MaximumLength = (USHORT)(Path->Length + sizeof(WCHAR));
    SavedPath.Buffer = ExAllocatePoolWithTag(PagedPool, SavedPath.MaximumLength, 'lleC');
    if (!SavedPath.Buffer)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyUnicodeString(&SavedPath, Path);
    Drv->DriverExtension->AddDevice = CellAdd;
    Drv->DriverUnload = CellUnload;
    Drv->MajorFunction[IRP_MJ_PNP] = SoftPnp;
    Drv->MajorFunction[IRP_MJ_POWER] = SoftPower;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CellWmi;
    Drv->MajorFunction[IRP_MJ_CREATE] = CellOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = CellOpenClose;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = CellOpenClose;
    Drv->MajorFunction[IRP_MJ_WRITE] = CellWrite;
    return STATUS_SUCCESS;
}
