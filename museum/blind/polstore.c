/*
 * polstore: a store of policy rules for the programs of one machine. A rule says what an application number may do; rules are added one by one, looked up,
 * listed and cleared. The table grows by doubling.
 *
 * The bug: the capacity is doubled before the larger table is there. If its memory cannot be had, the request fails properly, but the capacity stays
 * doubled while the table stays small: the next rules are written behind the end of the pool block.
 *
 * Device: none
 * Rule: wild-write, pool-overrun
 * Needs: failure
 */
#include <ddk/wdm.h>
#define YK_LEGACY
#include "../include/queue_kit.h"

#define POL_TAG 'loP '
#define POL_FIRST 8
#define POL_MOST 32768

#define IOCTL_POLSTORE_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_POLSTORE_FIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_POLSTORE_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_POLSTORE_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _POL_RULE {
    ULONG Application;
    ULONG Allowed;
    ULONG Denied;
    ULONG Flags;
} POL_RULE, *PPOL_RULE;

typedef struct _POL_STORE {
    FAST_MUTEX Lock;
    PPOL_RULE Rules; /* NULL before the first */
    ULONG Count;
    ULONG Capacity;
} POL_STORE, *PPOL_STORE;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING PolLink = {sizeof(L"\\DosDevices\\Polstore") - sizeof(WCHAR), sizeof(L"\\DosDevices\\Polstore"), (PWSTR)L"\\DosDevices\\Polstore"};
static UNICODE_STRING PolName = {sizeof(L"\\Device\\Polstore") - sizeof(WCHAR), sizeof(L"\\Device\\Polstore"), (PWSTR)L"\\Device\\Polstore"};

/* Under the lock. */
static PPOL_RULE PolFind(PPOL_STORE p, ULONG Application)
{
    ULONG i;

    for (i = 0; i < p->Count; i++) {
        if (p->Rules[i].Application == Application)
            return &p->Rules[i];
    }
    return NULL;
}

/* Under the lock: makes room for one rule more. */
static NTSTATUS PolRoom(PPOL_STORE p)
{
    PPOL_RULE Larger;
    ULONG Capacity;

    if (p->Count < p->Capacity)
        return STATUS_SUCCESS;
    if (p->Capacity >= POL_MOST)
        return STATUS_QUOTA_EXCEEDED;
    Capacity = p->Capacity != 0 ? p->Capacity * 2 : POL_FIRST;
#ifndef FIXED
    p->Capacity = Capacity;
#endif
    Larger = ExAllocatePoolWithTag(PagedPool, Capacity * sizeof(POL_RULE), POL_TAG);
    if (Larger == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (p->Rules != NULL) {
        RtlCopyMemory(Larger, p->Rules, p->Count * sizeof(POL_RULE));
        ExFreePoolWithTag(p->Rules, POL_TAG);
    }
    p->Rules = Larger;
#ifdef FIXED
    p->Capacity = Capacity;
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS PolAdd(PPOL_STORE p, const POL_RULE *r)
{
    PPOL_RULE Old;
    NTSTATUS Status = STATUS_SUCCESS;

    if ((r->Allowed & r->Denied) != 0)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&p->Lock);
    Old = PolFind(p, r->Application);
    if (Old != NULL) {
        *Old = *r;
    } else {
        Status = PolRoom(p);
        if (NT_SUCCESS(Status))
            p->Rules[p->Count++] = *r;
    }
    ExReleaseFastMutex(&p->Lock);
    return Status;
}

static VOID PolClear(PPOL_STORE p)
{
    PPOL_RULE Rules;

    ExAcquireFastMutex(&p->Lock);
    Rules = p->Rules;
    p->Rules = NULL;
    p->Count = 0;
    p->Capacity = 0;
    ExReleaseFastMutex(&p->Lock);
    if (Rules != NULL)
        ExFreePoolWithTag(Rules, POL_TAG);
}

static NTSTATUS NTAPI PolOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PolControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPOL_STORE p = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    POL_RULE Rule;
    PPOL_RULE r;
    ULONG n;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_POLSTORE_ADD:
        if (In < sizeof(Rule))
            return YkReply(Irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&Rule, Buffer, sizeof(Rule));
        return YkReply(Irp, PolAdd(p, &Rule), 0);

    case IOCTL_POLSTORE_FIND:
        if (In < sizeof(ULONG) || Out < sizeof(Rule))
            return YkReply(Irp, STATUS_INVALID_PARAMETER, 0);
        Status = STATUS_NOT_FOUND;
        ExAcquireFastMutex(&p->Lock);
        r = PolFind(p, *(PULONG)Buffer);
        if (r != NULL) {
            Rule = *r;
            Status = STATUS_SUCCESS;
        }
        ExReleaseFastMutex(&p->Lock);
        if (!NT_SUCCESS(Status))
            return YkReply(Irp, Status, 0);
        RtlCopyMemory(Buffer, &Rule, sizeof(Rule));
        return YkReply(Irp, STATUS_SUCCESS, sizeof(Rule));

    case IOCTL_POLSTORE_LIST:
        if (Out < sizeof(Rule))
            return YkReply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&p->Lock);
        n = Out / sizeof(Rule);
        if (n > p->Count)
            n = p->Count;
        if (n != 0)
            RtlCopyMemory(Buffer, p->Rules, n * sizeof(Rule));
        ExReleaseFastMutex(&p->Lock);
        return YkReply(Irp, STATUS_SUCCESS, n * sizeof(Rule));

    case IOCTL_POLSTORE_CLEAR:
        PolClear(p);
        return YkReply(Irp, STATUS_SUCCESS, 0);
    }
    return YkReply(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI PolUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink(&PolLink);
    PolClear(DriverObject->DeviceObject->DeviceExtension);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT DeviceObject;
    PPOL_STORE p;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(DriverObject, sizeof(POL_STORE), &PolName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &DeviceObject);
    if (!NT_SUCCESS(Status))
        return Status;
    p = DeviceObject->DeviceExtension;
    ExInitializeFastMutex(&p->Lock);
    p->Rules = NULL;
    p->Count = 0;
    p->Capacity = 0;
    Status = IoCreateSymbolicLink(&PolLink, &PolName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PolOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PolOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PolControl;
    DriverObject->DriverUnload = PolUnload;
    DeviceObject->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
