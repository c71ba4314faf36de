/*
 * knell: one-shot alarms. A program sets alarms (each with a bell, 0 to 15, and a time to go) and cancels them; the driver counts the strokes of each bell.
 *
 * The bug: cancelling drops the reference that belongs to the running timer without looking at what KeCancelTimer answers. If the timer has expired
 * already and its DPC is under way, both drop it: the alarm is freed while the DPC uses it, and once more by the DPC.
 *
 * Device: none
 * Rule: freed-queued-dpc, use-after-free
 * Needs: schedule
 */
#include "../include/ticking_card.h"

#define BELLS 16
#define MOST 256
#define LONGEST (24u * 3600 * 1000)

#define IOCTL_KNELL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_KNELL_CANCEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_KNELL_STROKES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _KNELL_SET {
    ULONG Bell;
    ULONG Milliseconds;
} KNELL_SET, *PKNELL_SET;

typedef struct _TOWER {
    KSPIN_LOCK Lock;
    LIST_ENTRY Alarms;
    ULONG Count;
    ULONG64 LastId;
    ULONG Strokes[BELLS];
} TOWER, *PTOWER;

typedef struct _ALARM {
    LIST_ENTRY Link;
    BOOLEAN Listed; /* under the tower's lock */
    volatile LONG Refs; /* one for the list, one for the timer while it runs */
    ULONG64 Id;
    ULONG Bell;
    PFILE_OBJECT File;
    PTOWER Tower;
    KTIMER Timer;
    KDPC Dpc;
} ALARM, *PALARM;

static VOID Release(PALARM a)
{
    if (InterlockedDecrement(&a->Refs) == 0)
        ExFreePoolWithTag(a, 'enKZ');
}

static VOID NTAPI Ring(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PALARM a = Context;
    PTOWER t = a->Tower;
    BOOLEAN Listed;

    (void)Dpc, (void)A, (void)B;
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    t->Strokes[a->Bell]++;
    Listed = a->Listed;
    if (Listed) {
        RemoveEntryList(&a->Link);
        a->Listed = FALSE;
        t->Count--;
    }
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    if (Listed)
        Release(a);
    Release(a);
}

static NTSTATUS Set(PTOWER t, PFILE_OBJECT File, const KNELL_SET *In, PULONG64 Id)
{
    LARGE_INTEGER Due;
    PALARM a;
    KIRQL Irql;

    if (In->Bell >= BELLS || In->Milliseconds > LONGEST)
        return STATUS_INVALID_PARAMETER;
    a = ExAllocatePoolWithTag(NonPagedPool, sizeof(*a), 'enKZ');
    if (!a)
        return STATUS_INSUFFICIENT_RESOURCES;
    a->Refs = 2;
    a->Listed = TRUE;
    a->Bell = In->Bell;
    a->File = File;
    a->Tower = t;
    KeInitializeTimer(&a->Timer);
    KeInitializeDpc(&a->Dpc, Ring, a);
    Due.QuadPart = -(LONGLONG)In->Milliseconds * 10000;

    KeAcquireSpinLock(&t->Lock, &Irql);
    if (t->Count >= MOST) {
        KeReleaseSpinLock(&t->Lock, Irql);
        ExFreePoolWithTag(a, 'enKZ');
        return STATUS_QUOTA_EXCEEDED;
    }
    t->Count++;
    *Id = a->Id = ++t->LastId;
    InsertTailList(&t->Alarms, &a->Link);
    KeSetTimer(&a->Timer, Due, &a->Dpc); /* under the lock: no one finds an alarm whose timer does not run yet */
    KeReleaseSpinLock(&t->Lock, Irql);
    return STATUS_SUCCESS;
}

/* Takes an alarm of the file out of the list: the one of this id, or with id 0 any. The list's reference passes to the caller. */
static PALARM Unlist(PTOWER t, PFILE_OBJECT File, ULONG64 Id)
{
    PLIST_ENTRY e;
    PALARM Found = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&t->Lock, &Irql);
    for (e = t->Alarms.Flink; e != &t->Alarms; e = e->Flink) {
        PALARM a = CONTAINING_RECORD(e, ALARM, Link);

        if (a->File == File && (!Id || a->Id == Id)) {
            RemoveEntryList(&a->Link);
            a->Listed = FALSE;
            t->Count--;
            Found = a;
            break;
        }
    }
    KeReleaseSpinLock(&t->Lock, Irql);
    return Found;
}

static VOID Silence(PALARM a)
{
#ifdef FIXED
    if (KeCancelTimer(&a->Timer))
        Release(a);
#else
    KeCancelTimer(&a->Timer);
    Release(a);
#endif
    Release(a);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Self, PIRP Irp)
{
    PTOWER t = Self->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KNELL_SET:
        if (InLength < sizeof(KNELL_SET) || OutLength < sizeof(ULONG64)) {
            Status = STATUS_INVALID_PARAMETER;
        } else {
            KNELL_SET In = *(PKNELL_SET)Buffer;

            Status = Set(t, sl->FileObject, &In, Buffer);
            if (NT_SUCCESS(Status))
                Information = sizeof(ULONG64);
        }
        break;
    case IOCTL_KNELL_CANCEL:
        if (InLength < sizeof(ULONG64) || !*(PULONG64)Buffer) {
            Status = STATUS_INVALID_PARAMETER;
        } else {
            PALARM a = Unlist(t, sl->FileObject, *(PULONG64)Buffer);

            Status = a ? STATUS_SUCCESS : STATUS_NOT_FOUND;
            if (a)
                Silence(a);
        }
        break;
    case IOCTL_KNELL_STROKES:
        if (OutLength < sizeof(t->Strokes)) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            KIRQL Irql;

            KeAcquireSpinLock(&t->Lock, &Irql);
            RtlCopyMemory(Buffer, t->Strokes, sizeof(t->Strokes));
            KeReleaseSpinLock(&t->Lock, Irql);
            Information = sizeof(t->Strokes);
            Status = STATUS_SUCCESS;
        }
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return ZComplete(Irp, Status, Information);
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Self, PIRP Irp)
{
    (void)Self;
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

/* Cleanup, and close too: a request that was under way during cleanup may have set one more. */
static NTSTATUS NTAPI CleanupClose(PDEVICE_OBJECT Self, PIRP Irp)
{
    PALARM a;

    while ((a = Unlist(Self->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, 0)) != NULL)
        Silence(a);
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING Link;

    RtlInitUnicodeString(&Link, L"\\DosDevices\\Knell");
    IoDeleteSymbolicLink(&Link);
    KeFlushQueuedDpcs(); /* no handle is open, so no alarm is set; the last DPC may still be under way */
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING Name, Link;
    PDEVICE_OBJECT Self;
    PTOWER t;
    NTSTATUS Status;

    (void)Path;
    RtlInitUnicodeString(&Name, L"\\Device\\Knell");
    RtlInitUnicodeString(&Link, L"\\DosDevices\\Knell");
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = CleanupClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CleanupClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;

    Status = IoCreateDevice(Driver, sizeof(TOWER), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    t = Self->DeviceExtension;
    RtlZeroMemory(t, sizeof(*t));
    KeInitializeSpinLock(&t->Lock);
    InitializeListHead(&t->Alarms);
    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Self);
    return Status;
}
