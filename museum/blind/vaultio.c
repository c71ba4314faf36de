/*
 * vaultio - keeps tickets (an owner cookie and a size) for helper processes.
 *
 * The interface predates x64: its structures hold pointer-sized fields, so
 * the driver serves 32-bit callers with their own layout.
 *
 *   IOCTL_VAULT_DEPOSIT   in:  VAULT_TICKET (Serial ignored); out: ULONG serial
 *   IOCTL_VAULT_WITHDRAW  in:  ULONG serial
 *   IOCTL_VAULT_LIST      out: VAULT_TICKET[]; as many as fit
 *
 * The bug: for a 32-bit program tickets are counted as long as for a 64-bit one.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define VAULT_TAG     'tluV'
#define VAULT_LIMIT   200

#define IOCTL_VAULT_DEPOSIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_VAULT_WITHDRAW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_VAULT_LIST     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A3, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _VAULT_TICKET {          /* 24 bytes */
    ULONG_PTR Cookie;
    SIZE_T    Size;
    ULONG     Serial;
} VAULT_TICKET, *PVAULT_TICKET;

typedef struct _VAULT_TICKET32 {        /* 12 bytes */
    ULONG     Cookie;
    ULONG     Size;
    ULONG     Serial;
} VAULT_TICKET32, *PVAULT_TICKET32;

typedef struct _ENTRY {
    LIST_ENTRY   Link;
    VAULT_TICKET Ticket;
} ENTRY, *PENTRY;

typedef struct _VAULT {
    FAST_MUTEX Lock;
    LIST_ENTRY Entries;
    ULONG      Count;
    ULONG      Serial;
} VAULT, *PVAULT;

static BOOLEAN CallerIs32(PIRP Irp)
{
    return Irp->RequestorMode == UserMode && IoIs32bitProcess(Irp);
}

static NTSTATUS VaultDeposit(PVAULT v, PIRP Irp, ULONG inLen, ULONG outLen, PULONG_PTR info)
{
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    PENTRY e;
    ULONG serial;

    if (outLen < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    if (inLen < (CallerIs32(Irp) ? sizeof(VAULT_TICKET32) : sizeof(VAULT_TICKET)))
        return STATUS_INFO_LENGTH_MISMATCH;

    e = ExAllocatePoolWithTag(PagedPool, sizeof(*e), VAULT_TAG);
    if (e == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(e, sizeof(*e));
    if (CallerIs32(Irp)) {
        PVAULT_TICKET32 t = buf;
        e->Ticket.Cookie = t->Cookie;
        e->Ticket.Size = t->Size;
    } else {
        PVAULT_TICKET t = buf;
        e->Ticket.Cookie = t->Cookie;
        e->Ticket.Size = t->Size;
    }

    ExAcquireFastMutex(&v->Lock);
    if (v->Count == VAULT_LIMIT) {
        ExReleaseFastMutex(&v->Lock);
        ExFreePoolWithTag(e, VAULT_TAG);
        return STATUS_QUOTA_EXCEEDED;
    }
    serial = e->Ticket.Serial = ++v->Serial;
    InsertTailList(&v->Entries, &e->Link);
    v->Count++;
    ExReleaseFastMutex(&v->Lock);

    *(PULONG)buf = serial;
    *info = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS VaultWithdraw(PVAULT v, PIRP Irp, ULONG inLen)
{
    ULONG serial;
    PLIST_ENTRY p;
    PENTRY found = NULL;

    if (inLen < sizeof(ULONG))
        return STATUS_INFO_LENGTH_MISMATCH;
    serial = *(PULONG)Irp->AssociatedIrp.SystemBuffer;

    ExAcquireFastMutex(&v->Lock);
    for (p = v->Entries.Flink; p != &v->Entries; p = p->Flink) {
        PENTRY e = CONTAINING_RECORD(p, ENTRY, Link);
        if (e->Ticket.Serial == serial) {
            RemoveEntryList(p);
            v->Count--;
            found = e;
            break;
        }
    }
    ExReleaseFastMutex(&v->Lock);
    if (found == NULL)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(found, VAULT_TAG);
    return STATUS_SUCCESS;
}

/* Narrows one ticket; what does not fit in 32 bits shows as all ones. */
static VOID VaultNarrow(PVAULT_TICKET32 to, const VAULT_TICKET *from)
{
    to->Cookie = from->Cookie > 0xFFFFFFFFu ? 0xFFFFFFFFu : (ULONG)from->Cookie;
    to->Size = from->Size > 0xFFFFFFFFu ? 0xFFFFFFFFu : (ULONG)from->Size;
    to->Serial = from->Serial;
}

static NTSTATUS VaultList(PVAULT v, PIRP Irp, ULONG outLen, PULONG_PTR info)
{
    PUCHAR out = Irp->AssociatedIrp.SystemBuffer;
    BOOLEAN narrow = CallerIs32(Irp);
    ULONG each = narrow ? sizeof(VAULT_TICKET32) : sizeof(VAULT_TICKET);
    ULONG room = outLen / each;
    ULONG n = 0;
    PLIST_ENTRY p;

    ExAcquireFastMutex(&v->Lock);
    for (p = v->Entries.Flink; p != &v->Entries && n < room; p = p->Flink, n++) {
        PENTRY e = CONTAINING_RECORD(p, ENTRY, Link);
        if (narrow)
            VaultNarrow((PVAULT_TICKET32)out + n, &e->Ticket);
        else
            RtlCopyMemory((PVAULT_TICKET)out + n, &e->Ticket, sizeof(VAULT_TICKET));
    }
    ExReleaseFastMutex(&v->Lock);

#ifdef FIXED
    *info = (ULONG_PTR)n * each;
#else
    *info = (ULONG_PTR)n * sizeof(VAULT_TICKET);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS VaultControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PVAULT v = Device->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLen = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLen = sl->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR info = 0;
    NTSTATUS status;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VAULT_DEPOSIT:
        status = VaultDeposit(v, Irp, inLen, outLen, &info);
        break;
    case IOCTL_VAULT_WITHDRAW:
        status = VaultWithdraw(v, Irp, inLen);
        break;
    case IOCTL_VAULT_LIST:
        status = VaultList(v, Irp, outLen, &info);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS VaultTrivial(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID VaultUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT dev = Driver->DeviceObject;
    PVAULT v = dev->DeviceExtension;
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\VaultIo");

    IoDeleteSymbolicLink(&link);
    while (!IsListEmpty(&v->Entries)) {
        PENTRY e = CONTAINING_RECORD(RemoveHeadList(&v->Entries), ENTRY, Link);
        ExFreePoolWithTag(e, VAULT_TAG);
    }
    IoDeleteDevice(dev);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\VaultIo");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\VaultIo");
    PDEVICE_OBJECT dev;
    PVAULT v;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(Driver, sizeof(VAULT), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;

    v = dev->DeviceExtension;
    RtlZeroMemory(v, sizeof(*v));
    ExInitializeFastMutex(&v->Lock);
    InitializeListHead(&v->Entries);

    Driver->MajorFunction[IRP_MJ_CREATE] = VaultTrivial;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = VaultTrivial;
    Driver->MajorFunction[IRP_MJ_CLOSE] = VaultTrivial;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = VaultControl;
    Driver->DriverUnload = VaultUnload;

    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
