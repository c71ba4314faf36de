/*
 * A notifier: IOCTL_NOTIFY_AT names a ULONG of the application's that is to be counted up, 10 ms later, by a timer.
 *
 * The bug: the application's address is kept and used in the timer's DPC, in whatever process runs then, where the page may not be there. It shows when
 * the timer expires.
 *
 * Device: none
 * Rule: user-memory-elsewhere, wild-write, paged-at-raised-irql, bad-pointer, wild-read
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Notifier"
#define LINK_NAME L"\\DosDevices\\Notifier"
#include "../include/try.h"
#include "../include/legacy.h"

#define IOCTL_NOTIFY_AT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A5, METHOD_NEITHER, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
    FAST_MUTEX Lock; /* guards what follows, and that the timer is set */
    PMDL Mdl;
    PULONG Counter;
} DEVICE, *PDEVICE;

static VOID NTAPI Notify(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Own = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (Own->Counter != NULL) {
        (*Own->Counter)++;
    }
}

static VOID Forget(PDEVICE Own)
{
    KeCancelTimer(&Own->Timer);
    KeFlushQueuedDpcs();
    Own->Counter = NULL;
    if (Own->Mdl != NULL) {
        MmUnlockPages(Own->Mdl);
        IoFreeMdl(Own->Mdl);
        Own->Mdl = NULL;
    }
}

static NTSTATUS Remember(PDEVICE Own, PULONG Counter)
{
    LARGE_INTEGER Due;

#ifdef FIXED
    Own->Mdl = IoAllocateMdl(Counter, sizeof(ULONG), FALSE, FALSE, NULL);
    if (Own->Mdl == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    __try {
        MmProbeAndLockPages(Own->Mdl, UserMode, IoWriteAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        IoFreeMdl(Own->Mdl);
        Own->Mdl = NULL;
        return STATUS_ACCESS_VIOLATION;
    }
    Own->Counter = MmGetSystemAddressForMdlSafe(Own->Mdl, NormalPagePriority);
    if (Own->Counter == NULL) {
        Forget(Own);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
#else
    __try {
        ProbeForWrite(Counter, sizeof(ULONG), sizeof(ULONG));
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return STATUS_ACCESS_VIOLATION;
    }
    Own->Counter = Counter;
#endif
    Due.QuadPart = -10 * 10000;
    KeSetTimer(&Own->Timer, Due, &Own->Dpc);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_NOTIFY_AT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&Own->Lock);
    Forget(Own);
    Status = Remember(Own, Irp->UserBuffer);
    ExReleaseFastMutexUnsafe(&Own->Lock);
    KeLeaveCriticalRegion();
    return Complete(Irp, Status, 0);
}

/* No request of the file is under way any more. */
static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&Own->Lock);
    Forget(Own);
    ExReleaseFastMutexUnsafe(&Own->Lock);
    KeLeaveCriticalRegion();
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Own = Device->DeviceExtension;
        ExInitializeFastMutex(&Own->Lock);
        KeInitializeTimer(&Own->Timer);
        KeInitializeDpc(&Own->Dpc, Notify, Own);
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
