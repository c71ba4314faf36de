/*
 * errand: computes slow keyed digests of up to 4096 bytes for several programs, one after the other, in a thread of the driver's own. Each caller says how
 * long it is prepared to wait.
 *
 * The bug: the result of the wait is looked at with NT_SUCCESS, but STATUS_TIMEOUT is a success code. A caller whose time is over goes away as if its job were
 * done, with a digest that was never computed, and leaves the job, which lies on its stack and names its buffer, with the worker.
 *
 * Device: none
 * Rule: wild-read, use-after-free
 * Needs: schedule
 */
#include "../include/ticking_card.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define BYTES 4096
#define ROUNDS 4096
#define LONGEST 10000

#define IOCTL_ERRAND_DIGEST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _ERRAND_IN {
    ULONG Milliseconds;
    ULONG Rounds;
    ULONG64 Key;
    UCHAR Data[1]; /* the rest of the input */
} ERRAND_IN, *PERRAND_IN;

typedef struct _JOB {
    LIST_ENTRY Link;
    BOOLEAN Listed; /* under the lock */
    const UCHAR *Data;
    ULONG Length;
    ULONG Rounds;
    ULONG64 Digest;
    KEVENT Done;
} JOB, *PJOB;

typedef struct _ERRAND {
    KSPIN_LOCK Lock;
    LIST_ENTRY Jobs;
    KSEMAPHORE Work;
    BOOLEAN Stop; /* under the lock */
    PVOID Thread;
} ERRAND, *PERRAND;

static ULONG64 Digest(ULONG64 Hash, const UCHAR *Data, ULONG Length, ULONG Rounds)
{
    ULONG r, i;

    for (r = 0; r < Rounds; r++) {
        for (i = 0; i < Length; i++) {
            Hash ^= Data[i];
            Hash *= 0x100000001b3ull;
        }
        Hash ^= Hash >> 29;
    }
    return Hash;
}

static VOID NTAPI Worker(PVOID Context)
{
    PERRAND x = Context;
    PJOB j;
    KIRQL Irql;
    BOOLEAN Stop;

    for (;;) {
        KeWaitForSingleObject(&x->Work, Executive, KernelMode, FALSE, NULL);
        j = NULL;
        KeAcquireSpinLock(&x->Lock, &Irql);
        Stop = x->Stop;
        if (!IsListEmpty(&x->Jobs)) {
            j = CONTAINING_RECORD(RemoveHeadList(&x->Jobs), JOB, Link);
            j->Listed = FALSE;
        }
        KeReleaseSpinLock(&x->Lock, Irql);
        if (j) {
            j->Digest = Digest(j->Digest, j->Data, j->Length, j->Rounds);
            KeSetEvent(&j->Done, IO_NO_INCREMENT, FALSE);
        } else if (Stop) {
            PsTerminateSystemThread(STATUS_SUCCESS);
        }
        /* neither: a job was withdrawn before we came to it */
    }
}

/* Takes a job back that no one has begun; one that has been begun is waited for, which is a matter of milliseconds. */
static BOOLEAN Withdraw(PERRAND x, PJOB j)
{
    KIRQL Irql;
    BOOLEAN Listed;

    KeAcquireSpinLock(&x->Lock, &Irql);
    Listed = j->Listed;
    if (Listed) {
        RemoveEntryList(&j->Link);
        j->Listed = FALSE;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (!Listed)
        KeWaitForSingleObject(&j->Done, Executive, KernelMode, FALSE, NULL);
    return Listed;
}

static NTSTATUS RunErrand(PERRAND x, const ERRAND_IN *In, ULONG Length, PULONG64 Result)
{
    LARGE_INTEGER Due;
    JOB Job;
    KIRQL Irql;
    NTSTATUS Status;

    if (!In->Rounds || In->Rounds > ROUNDS || In->Milliseconds > LONGEST)
        return STATUS_INVALID_PARAMETER;
    Due.QuadPart = -(LONGLONG)In->Milliseconds * 10000;
    Job.Data = In->Data;
    Job.Length = Length;
    Job.Rounds = In->Rounds;
    Job.Digest = In->Key;
    Job.Listed = TRUE;
    KeInitializeEvent(&Job.Done, NotificationEvent, FALSE);

    KeAcquireSpinLock(&x->Lock, &Irql);
    InsertTailList(&x->Jobs, &Job.Link);
    KeReleaseSpinLock(&x->Lock, Irql);
    KeReleaseSemaphore(&x->Work, IO_NO_INCREMENT, 1, FALSE);

    Status = KeWaitForSingleObject(&Job.Done, Executive, KernelMode, FALSE, &Due);
#ifdef FIXED
    if (Status != STATUS_SUCCESS && Withdraw(x, &Job))
#else
    if (!NT_SUCCESS(Status) && Withdraw(x, &Job))
#endif
        return STATUS_IO_TIMEOUT;
    *Result = Job.Digest;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Self, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG64 Result;
    NTSTATUS Status;

    if (sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_ERRAND_DIGEST)
        return ZComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (InLength <= (ULONG)FIELD_OFFSET(ERRAND_IN, Data) || InLength > FIELD_OFFSET(ERRAND_IN, Data) + BYTES)
        return ZComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(Result))
        return ZComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    Status = RunErrand(Self->DeviceExtension, Irp->AssociatedIrp.SystemBuffer, InLength - FIELD_OFFSET(ERRAND_IN, Data), &Result);
    if (!NT_SUCCESS(Status))
        return ZComplete(Irp, Status, 0);
    *(PULONG64)Irp->AssociatedIrp.SystemBuffer = Result;
    return ZComplete(Irp, STATUS_SUCCESS, sizeof(Result));
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT Self, PIRP Irp)
{
    (void)Self;
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID Dismiss(PERRAND x, HANDLE Thread)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Stop = TRUE;
    KeReleaseSpinLock(&x->Lock, Irql);
    KeReleaseSemaphore(&x->Work, IO_NO_INCREMENT, 1, FALSE);
    if (Thread) {
        ZwWaitForSingleObject(Thread, FALSE, NULL);
    } else {
        KeWaitForSingleObject(x->Thread, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(x->Thread);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING Link;

    RtlInitUnicodeString(&Link, L"\\DosDevices\\Errand");
    IoDeleteSymbolicLink(&Link);
    Dismiss(Driver->DeviceObject->DeviceExtension, NULL);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING Name, Link;
    OBJECT_ATTRIBUTES Attributes;
    PDEVICE_OBJECT Self;
    PERRAND x;
    HANDLE Thread;
    NTSTATUS Status;

    (void)Path;
    RtlInitUnicodeString(&Name, L"\\Device\\Errand");
    RtlInitUnicodeString(&Link, L"\\DosDevices\\Errand");
    Driver->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;

    Status = IoCreateDevice(Driver, sizeof(ERRAND), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Jobs);
    KeInitializeSemaphore(&x->Work, 0, MAXLONG);

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Worker, x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = ObReferenceObjectByHandle(Thread, SYNCHRONIZE, *PsThreadType, KernelMode, &x->Thread, NULL);
    if (!NT_SUCCESS(Status)) {
        Dismiss(x, Thread);
        ZwClose(Thread);
        IoDeleteDevice(Self);
        return Status;
    }
    ZwClose(Thread);

    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status)) {
        Dismiss(x, NULL);
        IoDeleteDevice(Self);
    }
    return Status;
}
