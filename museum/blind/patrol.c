/*
 * patrol: watches the clock of the machine. While a watch is on, a thread of the driver's takes a sample of the time every so many milliseconds and keeps the
 * greatest delay it has seen, and the last 64 samples.
 *
 * The bug: the thread holds the remove lock while it runs and is asked to end only when the device's memory is freed, after the wait for the remove lock.
 * Removing (or disabling) the device while a watch is on waits for ever in IoReleaseRemoveLockAndWait.
 *
 * Device: ROOT\PATROL
 * Rule: stuck
 * Needs: removal
 */
#include "../include/ticking_card.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define SAMPLES 64
#define SHORTEST 10
#define LONGEST 10000

#define IOCTL_PATROL_ON CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PATROL_OFF CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PATROL_REPORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a2, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID PATROL_GUID = {0x5d0b6c15, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x05}};

typedef struct _PATROL_REPORT {
    ULONG64 Samples;
    ULONG64 Greatest;
    ULONG64 Last[SAMPLES];
} PATROL_REPORT, *PPATROL_REPORT;

typedef struct _PATROL {
    ZDEV Dev;
    KMUTEX Gate; /* turning the watch on and off */
    PVOID Thread;
    ULONG Period;
    KEVENT Stop;
    KSPIN_LOCK Lock;
    PATROL_REPORT Report;
} PATROL, *PPATROL;

static VOID NTAPI PatrolThread(PVOID Context)
{
    PPATROL p = Context;
    ULONG64 Before = KeQueryInterruptTime(), Now, Delay;
    LARGE_INTEGER Due;
    KIRQL Irql;

    Due.QuadPart = -(LONGLONG)p->Period * 10000;
    while (KeWaitForSingleObject(&p->Stop, Executive, KernelMode, FALSE, &Due) == STATUS_TIMEOUT) {
        Now = KeQueryInterruptTime();
        Delay = Now - Before;
        Before = Now;
        KeAcquireSpinLock(&p->Lock, &Irql);
        p->Report.Last[p->Report.Samples % SAMPLES] = Delay;
        p->Report.Samples++;
        if (Delay > p->Report.Greatest)
            p->Report.Greatest = Delay;
        KeReleaseSpinLock(&p->Lock, Irql);
    }
    IoReleaseRemoveLock(&p->Dev.Lock, p);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS TurnOn(PPATROL p, ULONG Period)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Thread;
    NTSTATUS Status;
    KIRQL Irql;

    if (Period < SHORTEST || Period > LONGEST)
        return STATUS_INVALID_PARAMETER;
    KeWaitForSingleObject(&p->Gate, Executive, KernelMode, FALSE, NULL);
    if (p->Dev.Dead) {
        Status = ZRefusal(&p->Dev);
    } else if (p->Thread) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        Status = IoAcquireRemoveLock(&p->Dev.Lock, p); /* the thread's own */
        if (NT_SUCCESS(Status)) {
            p->Period = Period;
            KeClearEvent(&p->Stop);
            KeAcquireSpinLock(&p->Lock, &Irql);
            RtlZeroMemory(&p->Report, sizeof(p->Report));
            KeReleaseSpinLock(&p->Lock, Irql);
            InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
            Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, PatrolThread, p);
            if (!NT_SUCCESS(Status))
                IoReleaseRemoveLock(&p->Dev.Lock, p);
        }
        if (NT_SUCCESS(Status)) {
            Status = ObReferenceObjectByHandle(Thread, SYNCHRONIZE, *PsThreadType, KernelMode, &p->Thread, NULL);
            if (!NT_SUCCESS(Status)) {
                p->Thread = NULL;
                KeSetEvent(&p->Stop, IO_NO_INCREMENT, FALSE);
                ZwWaitForSingleObject(Thread, FALSE, NULL);
            }
            ZwClose(Thread);
        }
    }
    KeReleaseMutex(&p->Gate, FALSE);
    return Status;
}

static VOID TurnOff(PPATROL p)
{
    KeWaitForSingleObject(&p->Gate, Executive, KernelMode, FALSE, NULL);
    if (p->Thread) {
        KeSetEvent(&p->Stop, IO_NO_INCREMENT, FALSE);
        KeWaitForSingleObject(p->Thread, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(p->Thread);
        p->Thread = NULL;
    }
    KeReleaseMutex(&p->Gate, FALSE);
}

static NTSTATUS PatrolRequest(PZDEV d, PIRP Irp)
{
    PPATROL p = CONTAINING_RECORD(d, PATROL, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;

    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PATROL_ON:
        if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        return TurnOn(p, *(PULONG)Buffer);
    case IOCTL_PATROL_OFF:
        TurnOff(p);
        return STATUS_SUCCESS;
    case IOCTL_PATROL_REPORT:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PATROL_REPORT))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&p->Lock, &Irql);
        *(PPATROL_REPORT)Buffer = p->Report;
        KeReleaseSpinLock(&p->Lock, Irql);
        Irp->IoStatus.Information = sizeof(PATROL_REPORT);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS PatrolAdd(PZDEV d)
{
    PPATROL p = CONTAINING_RECORD(d, PATROL, Dev);

    KeInitializeMutex(&p->Gate, 0);
    KeInitializeEvent(&p->Stop, NotificationEvent, FALSE);
    KeInitializeSpinLock(&p->Lock);
    return STATUS_SUCCESS;
}

#ifdef FIXED
static VOID PatrolKill(PZDEV d)
{
    TurnOff(CONTAINING_RECORD(d, PATROL, Dev));
}
#endif

static VOID PatrolFree(PZDEV d)
{
    TurnOff(CONTAINING_RECORD(d, PATROL, Dev));
}

static const ZOPS PatrolOps = {
    .Interface = &PATROL_GUID,
    .ExtensionSize = sizeof(PATROL),
    .Flags = DO_BUFFERED_IO,
    .Add = PatrolAdd,
    .Free = PatrolFree,
#ifdef FIXED
    .Kill = PatrolKill,
#endif
    .Request = PatrolRequest,
};

static NTSTATUS NTAPI PatrolAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &PatrolOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, PatrolAddDevice);
}
