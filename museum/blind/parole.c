/*
 * parole: check sums by a thread of their own. A program writes a block; the request is handed through a ring to the driver's thread, which works out the sum
 * (Fletcher, 32 bits) and wakes the program again. A program may read the sum of the block it wrote last.
 *
 * The bug: the thread says "I am going to sleep" and then looks whether the ring is empty; the writer puts its job into the ring and then looks whether the
 * thread sleeps. Without a barrier both may look before their own store is seen by the other CPU: the thread is not woken, and the program hangs in the kernel.
 *
 * Device: none
 * Rule: irp-never-completed
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define YK_LEGACY
#include "../include/queue_kit.h"

#define PAR_RING 64
#define PAR_LONGEST 65536

#define IOCTL_PAROLE_JOBS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)

#ifdef FIXED
#define PAR_BARRIER() __sync_synchronize()
#else
#define PAR_BARRIER() ((void)0)
#endif

/* On the stack of the writer, who does not leave before Done. */
typedef struct _PAR_JOB {
    const UCHAR *Data;
    ULONG Length;
    ULONG Sum;
    KEVENT Done;
} PAR_JOB, *PPAR_JOB;

typedef struct _PAR_EXT {
    PAR_JOB *volatile Ring[PAR_RING];
    volatile ULONG Head;    /* next to be put; writers, under Lock */
    volatile ULONG Tail;    /* next to be taken; the thread alone */
    volatile LONG Parked;   /* the thread sleeps or is about to */
    volatile LONG Stop;
    volatile LONG Jobs;
    KSPIN_LOCK Lock;        /* of the writers */
    KEVENT Wake;            /* synchronization */
    PVOID Thread;
} PAR_EXT, *PPAR_EXT;

DRIVER_INITIALIZE DriverEntry;

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

static UNICODE_STRING ParLink = {sizeof(L"\\DosDevices\\Parole") - sizeof(WCHAR), sizeof(L"\\DosDevices\\Parole"), (PWSTR)L"\\DosDevices\\Parole"};
static UNICODE_STRING ParName = {sizeof(L"\\Device\\Parole") - sizeof(WCHAR), sizeof(L"\\Device\\Parole"), (PWSTR)L"\\Device\\Parole"};

static ULONG ParSum(const UCHAR *p, ULONG Length)
{
    ULONG a = 1, b = 0, i;

    for (i = 0; i < Length; i++) {
        a = (a + p[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static VOID NTAPI ParThread(PVOID Context)
{
    PPAR_EXT x = Context;
    PPAR_JOB j;

    for (;;) {
        while (x->Tail != x->Head) {
            j = x->Ring[x->Tail % PAR_RING];
            x->Tail = x->Tail + 1;
            j->Sum = ParSum(j->Data, j->Length);
            x->Jobs = x->Jobs + 1;
            KeSetEvent(&j->Done, IO_NO_INCREMENT, FALSE);
        }
        if (x->Stop)
            break;
        x->Parked = 1;
        PAR_BARRIER();
        if (x->Tail != x->Head || x->Stop) {
            x->Parked = 0;
            continue;
        }
        KeWaitForSingleObject(&x->Wake, Executive, KernelMode, FALSE, NULL);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Puts a job into the ring and wakes the thread if it sleeps. */
static BOOLEAN ParPut(PPAR_EXT x, PPAR_JOB j)
{
    BOOLEAN Put = FALSE;
    LONG Asleep = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Head - x->Tail < PAR_RING) {
        x->Ring[x->Head % PAR_RING] = j;
        x->Head = x->Head + 1;
        PAR_BARRIER();
        Asleep = x->Parked;
        if (Asleep)
            x->Parked = 0;
        Put = TRUE;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Asleep)
        KeSetEvent(&x->Wake, IO_NO_INCREMENT, FALSE);
    return Put;
}

static NTSTATUS ParWrite(PPAR_EXT x, PIRP Irp, PFILE_OBJECT File, ULONG Length)
{
    PAR_JOB j;

    if (Length == 0 || Length > PAR_LONGEST)
        return YkReply(Irp, STATUS_INVALID_PARAMETER, 0);
    j.Data = Irp->AssociatedIrp.SystemBuffer;
    j.Length = Length;
    j.Sum = 0;
    KeInitializeEvent(&j.Done, NotificationEvent, FALSE);
    if (!ParPut(x, &j))
        return YkReply(Irp, STATUS_DEVICE_BUSY, 0);
    KeWaitForSingleObject(&j.Done, Executive, KernelMode, FALSE, NULL);
    InterlockedExchangePointer(&File->FsContext, (PVOID)(ULONG_PTR)j.Sum);
    return YkReply(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI ParRequest(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAR_EXT x = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    switch (s->MajorFunction) {
    case IRP_MJ_WRITE:
        return ParWrite(x, Irp, s->FileObject, s->Parameters.Write.Length);
    case IRP_MJ_READ:
        if (s->Parameters.Read.Length < sizeof(ULONG))
            return YkReply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = (ULONG)(ULONG_PTR)s->FileObject->FsContext;
        return YkReply(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_PAROLE_JOBS)
        return YkReply(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
        return YkReply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = x->Jobs;
    return YkReply(Irp, STATUS_SUCCESS, sizeof(LONG));
}

static NTSTATUS NTAPI ParOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static VOID ParStopThread(PPAR_EXT x)
{
    InterlockedExchange(&x->Stop, 1);
    KeSetEvent(&x->Wake, IO_NO_INCREMENT, FALSE);
}

/* No handle is open, so no job is in the ring. */
static VOID NTAPI ParUnload(PDRIVER_OBJECT DriverObject)
{
    PPAR_EXT x = DriverObject->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&ParLink);
    ParStopThread(x);
    KeWaitForSingleObject(x->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(x->Thread);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT DeviceObject;
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle;
    NTSTATUS Status;
    PPAR_EXT x;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(DriverObject, sizeof(PAR_EXT), &ParName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &DeviceObject);
    if (!NT_SUCCESS(Status))
        return Status;
    x = DeviceObject->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    KeInitializeSpinLock(&x->Lock);
    KeInitializeEvent(&x->Wake, SynchronizationEvent, FALSE);

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, ParThread, x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    Status = ObReferenceObjectByHandle(Handle, SYNCHRONIZE, NULL, KernelMode, &x->Thread, NULL);
    if (!NT_SUCCESS(Status)) {
        ParStopThread(x);
        ZwWaitForSingleObject(Handle, FALSE, NULL);
        ZwClose(Handle);
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    ZwClose(Handle);

    Status = IoCreateSymbolicLink(&ParLink, &ParName);
    if (!NT_SUCCESS(Status)) {
        ParStopThread(x);
        KeWaitForSingleObject(x->Thread, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(x->Thread);
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = ParOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = ParOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = ParRequest;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = ParRequest;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ParRequest;
    DriverObject->DriverUnload = ParUnload;
    DeviceObject->Flags |= DO_BUFFERED_IO;
    DeviceObject->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
