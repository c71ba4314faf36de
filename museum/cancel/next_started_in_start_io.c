/*
 * A printer's spooler by StartIo: the printer needs 5 ms to warm up, and prints 100 lines then, each at once.
 *
 * The bug: StartIo calls IoStartNextPacket for the next request before it returns, which calls StartIo again: each request that waits takes more of the stack.
 * It shows with many writes that wait while the printer warms up.
 *
 * Device: none
 * Rule: stack-overflow
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Spooler"
#define LINK_NAME L"\\DosDevices\\Spooler"
#include "../include/legacy.h"

#define LINES 100

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
    ULONG Left; /* lines until it is cold again */
    ULONG64 Sum;
    LONG Printed;
} DEVICE, *PDEVICE;

__attribute__((always_inline)) static inline VOID Print(PDEVICE Own, PIRP Irp)
{
    volatile UCHAR Line[512];
    ULONG Index, Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;

    for (Index = 0; Index < sizeof(Line); Index++) {
        Line[Index] = Index < Length ? ((PUCHAR)Irp->AssociatedIrp.SystemBuffer)[Index] : 0;
    }
    Own->Sum += Line[0];
    Own->Left--;
    Complete(Irp, STATUS_SUCCESS, Length);
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    LARGE_INTEGER Due;

    if (Own->Left == 0) {
        Due.QuadPart = -5 * 10000;
        KeSetTimer(&Own->Timer, Due, &Own->Dpc);
        return;
    }
    Print(Own, Irp);
    IoStartNextPacket(Device, FALSE);
    InterlockedIncrement(&Own->Printed);
}

static VOID NTAPI Warm(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE_OBJECT Device = Context;
    PDEVICE Own = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    Own->Left = LINES;
    Print(Own, Device->CurrentIrp);
    IoStartNextPacket(Device, FALSE);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, NULL);
    return STATUS_PENDING;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&Own->Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    KeInitializeTimer(&Own->Timer);
    KeInitializeDpc(&Own->Dpc, Warm, Device);
#ifdef FIXED
    IoSetStartIoAttributes(Device, TRUE, FALSE); /* StartIo is called again when it has returned */
#endif
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
