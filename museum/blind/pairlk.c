/*
 * Accounts: 16 counters, each with its own spin lock; IOCTLs move amounts between two of them and read one.
 *
 * The bug: a transfer locks the source first, then the target; two transfers in opposite directions on two processors
 * wait for each other.
 *
 * Device: none
 * Rule: lock-order-inversion
 * Needs: ioctl
 * Symptom: both processors spin at DISPATCH_LEVEL (DPC_WATCHDOG_VIOLATION 0x133); Driver Verifier 0xC4 with 0x1001.
 */
#include <ddk/wdm.h>

#define ACCOUNTS 16

#define IOCTL_ACCOUNT_MOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_ACCOUNT_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _MOVE {
    ULONG From;
    ULONG To;
    ULONGLONG Amount;
} MOVE;

typedef struct _ACCOUNT {
    KSPIN_LOCK Lock;
    ULONGLONG Balance;
    ULONG Moves;
} ACCOUNT, *PACCOUNT;

static ACCOUNT Accounts[ACCOUNTS];

static NTSTATUS PlComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI PlCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return PlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PlClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return PlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PlMove(const MOVE *Move)
{
    NTSTATUS status = STATUS_SUCCESS;
    PACCOUNT from, to, first, second;
    KIRQL irql;

    if (Move->From >= ACCOUNTS || Move->To >= ACCOUNTS || Move->From == Move->To) {
        return STATUS_INVALID_PARAMETER;
    }
    from = &Accounts[Move->From];
    to = &Accounts[Move->To];
#ifdef FIXED
    first = Move->From < Move->To ? from : to;
    second = Move->From < Move->To ? to : from;
#else
    first = from;
    second = to;
#endif
    KeAcquireSpinLock(&first->Lock, &irql);
    KeAcquireSpinLockAtDpcLevel(&second->Lock);
    if (from->Balance < Move->Amount) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        from->Balance -= Move->Amount;
        to->Balance += Move->Amount;
        from->Moves++;
        to->Moves++;
    }
    KeReleaseSpinLockFromDpcLevel(&second->Lock);
    KeReleaseSpinLock(&first->Lock, irql);
    return status;
}

static NTSTATUS PlRead(ULONG Index, PULONGLONG Balance)
{
    KIRQL irql;

    if (Index >= ACCOUNTS) {
        return STATUS_INVALID_PARAMETER;
    }
    KeAcquireSpinLock(&Accounts[Index].Lock, &irql);
    *Balance = Accounts[Index].Balance;
    KeReleaseSpinLock(&Accounts[Index].Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PlControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    ULONG_PTR information = 0;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ACCOUNT_MOVE:
        status = in < sizeof(MOVE) ? STATUS_BUFFER_TOO_SMALL : PlMove(buffer);
        break;
    case IOCTL_ACCOUNT_READ:
        if (in < sizeof(ULONG) || out < sizeof(ULONGLONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = PlRead(*(PULONG)buffer, buffer);
        if (NT_SUCCESS(status)) {
            information = sizeof(ULONGLONG);
        }
        break;
    }
    return PlComplete(Irp, status, information);
}

static VOID NTAPI PlUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\PairLk");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\PairLk");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\PairLk");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    for (int i = 0; i < ACCOUNTS; i++) {
        KeInitializeSpinLock(&Accounts[i].Lock);
        Accounts[i].Balance = 1000;
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = PlUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PlCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PlClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PlControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}
