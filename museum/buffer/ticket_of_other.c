/*
 * Tickets: a request takes one, and is answered with the number that it is given back by. A handle's tickets go with it.
 *
 * The bug: the search for the ticket to give back passes over those of other handles, but keeps the last one that it has looked at: a ticket of another handle's that is
 * the last in the list is freed and stays in it. It shows where what one handle was answered with is given back on another one.
 *
 * Device: none
 * Rule: use-after-free, double-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Tickets"
#define LINK_NAME L"\\DosDevices\\Tickets"
#include "../include/driver.h"
#include "../include/legacy.h"

#define TICKET_TAG 'kciT'
#define IOCTL_TICKET_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA31, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: ULONG64, the number */
#define IOCTL_TICKET_BACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA32, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: the same */
#define MOST 64

typedef struct _TICKET {
    LIST_ENTRY Entry;
    PFILE_OBJECT File;
    ULONG64 Number;
} TICKET, *PTICKET;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    LIST_ENTRY Tickets;
    ULONG Count;
    ULONG64 Last;
} DEVICE, *PDEVICE;

static NTSTATUS Take(PDEVICE Own, PFILE_OBJECT File, PULONG64 Number)
{
    PTICKET Ticket = ExAllocatePoolWithTag(PagedPool, sizeof(TICKET), TICKET_TAG);

    if (Ticket == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ExAcquireFastMutex(&Own->Mutex);
    if (Own->Count == MOST) {
        ExReleaseFastMutex(&Own->Mutex);
        ExFreePoolWithTag(Ticket, TICKET_TAG);
        return STATUS_QUOTA_EXCEEDED;
    }
    Own->Count++;
    Ticket->File = File;
    Ticket->Number = *Number = 0x7E1C000000000000ull + ++Own->Last * 0x10001;
    InsertTailList(&Own->Tickets, &Ticket->Entry);
    ExReleaseFastMutex(&Own->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS Back(PDEVICE Own, PFILE_OBJECT File, ULONG64 Number)
{
    PTICKET Ticket = NULL;
    PLIST_ENTRY Entry;

    ExAcquireFastMutex(&Own->Mutex);
    for (Entry = Own->Tickets.Flink; Entry != &Own->Tickets; Entry = Entry->Flink) {
        Ticket = CONTAINING_RECORD(Entry, TICKET, Entry);
        if (Ticket->Number == Number && Ticket->File == File) {
            RemoveEntryList(Entry);
            Own->Count--;
            break;
        }
#ifdef FIXED
        Ticket = NULL;
#endif
    }
    ExReleaseFastMutex(&Own->Mutex);
    if (Ticket == NULL || Ticket->Number != Number) {
        return STATUS_NOT_FOUND;
    }
    ExFreePoolWithTag(Ticket, TICKET_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;
    ULONG Input = InputOf(Stack), Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG64 Number = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;

    switch (CodeOf(Stack)) {
    case IOCTL_TICKET_TAKE:
        if (Input != 0 || Output != sizeof(*Number)) {
            return Complete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
        }
        Status = Take(Own, Stack->FileObject, Number);
        return Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(*Number) : 0);
    case IOCTL_TICKET_BACK:
        if (Input != sizeof(*Number) || Output != 0) {
            return Complete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
        }
        return Complete(Irp, Back(Own, Stack->FileObject, *Number), 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* No request of the handle's is under way any more. */
static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PLIST_ENTRY Entry, Next;
    PTICKET Ticket;

    ExAcquireFastMutex(&Own->Mutex);
    for (Entry = Own->Tickets.Flink; Entry != &Own->Tickets; Entry = Next) {
        Next = Entry->Flink;
        Ticket = CONTAINING_RECORD(Entry, TICKET, Entry);
        if (Ticket->File == File) {
            RemoveEntryList(Entry);
            Own->Count--;
            ExFreePoolWithTag(Ticket, TICKET_TAG);
        }
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);
    PDEVICE Own;

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Own = Device->DeviceExtension;
        ExInitializeFastMutex(&Own->Mutex);
        InitializeListHead(&Own->Tickets);
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
