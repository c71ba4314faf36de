/*
 * A till: one code opens it, one, METHOD_NEITHER, books an amount to one of its accounts. The booking is read from the application's memory within __try.
 *
 * The bug: the accounts are NULL until the till has been opened, and are used within the same __try: its handler takes the exception for the application's, and
 * the application, which may have memory at address 0, is booked to. It shows with a sound booking before the till is opened.
 *
 * Device: none
 * Rule: user-memory-not-probed
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Till"
#define LINK_NAME L"\\DosDevices\\Till"
#include "../include/try.h"
#include "../include/legacy.h"

#define TILL_TAG 'lliT'
#define IOCTL_TILL_OPEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE1B, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TILL_BOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE1C, METHOD_NEITHER, FILE_ANY_ACCESS)
#define ACCOUNTS 16

/* What an application gives. */
typedef struct _BOOKING {
    ULONG Account;
    LONG Amount;
} BOOKING, *PBOOKING;

typedef struct _DEVICE {
    LONG *volatile Accounts; /* from the first IOCTL_TILL_OPEN to Unload */
} DEVICE, *PDEVICE;

/* Called within __try. */
__attribute__((noinline)) static NTSTATUS Book(PDEVICE Own, const volatile BOOKING *Booking)
{
    LONG *Accounts = Own->Accounts;
    ULONG Account;
    LONG Amount;

#ifdef FIXED
    if (Accounts == NULL) {
        return STATUS_DEVICE_NOT_READY;
    }
#endif
    ProbeForRead((PVOID)Booking, sizeof(BOOKING), 1);
    Account = Booking->Account;
    Amount = Booking->Amount;
    if (Account >= ACCOUNTS) {
        return STATUS_INVALID_PARAMETER;
    }
    InterlockedExchangeAdd(&Accounts[Account], Amount);
    return STATUS_SUCCESS;
}

__attribute__((noinline)) static NTSTATUS BookGuarded(PDEVICE Own, PVOID Booking)
{
    NTSTATUS Status;

    __try {
        Status = Book(Own, Booking);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
    return Status;
}

static NTSTATUS Open(PDEVICE Own)
{
    LONG *Accounts = ExAllocatePoolWithTag(NonPagedPool, ACCOUNTS * sizeof(LONG), TILL_TAG);

    if (Accounts == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Accounts, ACCOUNTS * sizeof(LONG));
    if (InterlockedCompareExchangePointer((PVOID volatile *)&Own->Accounts, Accounts, NULL) != NULL) {
        ExFreePoolWithTag(Accounts, TILL_TAG); /* it is open already */
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(Stack)) {
    case IOCTL_TILL_OPEN:
        return Complete(Irp, Open(Own), 0);
    case IOCTL_TILL_BOOK:
        if (InputOf(Stack) < sizeof(BOOKING)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Complete(Irp, BookGuarded(Own, Stack->Parameters.DeviceIoControl.Type3InputBuffer), 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Accounts != NULL) {
        ExFreePoolWithTag(Own->Accounts, TILL_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
