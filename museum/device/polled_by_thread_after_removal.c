/*
 * A card whose status a thread of the driver's reads every 20 ms.
 *
 * The bug: the thread is asked to stop when the device is removed, and not waited for before the registers are unmapped. It shows with a schedule in which the
 * thread is late, or with a surprise removal.
 *
 * Device: PCI\VEN_1A2B&DEV_0008
 * Rule: device-memory-not-mapped, wild-read, unload-still-called, use-after-free
 * Needs: removal, schedule
 */
#include "../include/card.h"

typedef struct _DEVICE {
    FDO Fdo;
    KEVENT StopPolling;
    KEVENT Reading; /* who has it may read: the thread, or what keeps it from that */
    PKTHREAD Thread;
    ULONG Last;
} DEVICE, *PDEVICE;

static VOID NTAPI Poll(PVOID Context)
{
    PDEVICE Own = Context;
    LARGE_INTEGER Pause;

    Pause.QuadPart = -20 * 10000;
    do {
        LARGE_INTEGER Now = {.QuadPart = 0};

        if (KeWaitForSingleObject(&Own->Reading, Executive, KernelMode, FALSE, &Now) == STATUS_SUCCESS) {
            Own->Last = CardRead(&Own->Fdo, 0);
            KeSetEvent(&Own->Reading, IO_NO_INCREMENT, FALSE);
        }
    } while (KeWaitForSingleObject(&Own->StopPolling, Executive, KernelMode, FALSE, &Pause) == STATUS_TIMEOUT);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = (PDEVICE)Fdo;
    HANDLE Handle;
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeInitializeEvent(&Own->StopPolling, NotificationEvent, FALSE);
    KeInitializeEvent(&Own->Reading, SynchronizationEvent, TRUE);
    Status = PsCreateSystemThread(&Handle, SYNCHRONIZE, NULL, NULL, NULL, Poll, Own);
    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
        return Status;
    }
    ObReferenceObjectByHandle(Handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&Own->Thread, NULL);
    ZwClose(Handle);
    return STATUS_SUCCESS;
}

static VOID EndThread(PDEVICE Own)
{
    KeSetEvent(&Own->StopPolling, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    KeWaitForSingleObject(Own->Thread, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(Own->Thread);
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    EndThread((PDEVICE)Fdo);
    CardUnmap(Fdo);
}

/* The thread reads nothing while the card has no power. */
static VOID PowerDown(PFDO Fdo)
{
    PDEVICE Own = (PDEVICE)Fdo;

    KeWaitForSingleObject(&Own->Reading, Executive, KernelMode, FALSE, NULL);
}

static VOID PowerUp(PFDO Fdo)
{
    KeSetEvent(&((PDEVICE)Fdo)->Reading, IO_NO_INCREMENT, FALSE);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d008);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop, .PowerDown = PowerDown, .PowerUp = PowerUp};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    return STATUS_SUCCESS;
}
