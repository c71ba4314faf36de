/*
 * treadle: a root-enumerated driver that stands in for the stepping motor of a loom while its software is developed. A
 * thread, made when the device is started, takes moves from a queue and makes a step each millisecond; the position can
 * be asked for at any time.
 *
 * The bug: IRP_MN_STOP_DEVICE does not end the thread. The next start makes another one, and the first is neither
 * awaited nor dereferenced any more.
 *
 * Device: ROOT\TREADLE
 * Rule: object-reference-leak, unload-still-called, stuck, data-race
 * Needs: device
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define IOCTL_TREADLE_MOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TREADLE_POSITION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TREADLE_ZERO CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_STEPS 200

static const GUID TreadleInterface = {0x8e0b9d44, 0x1d27, 0x4c0e, {0xb5, 0x60, 0x2a, 0x93, 0xf1, 0x5c, 0x08, 0x04}};

typedef struct TREADLE {
    FRAME F;
    RQ Moves;
    KEVENT Work;                        /* something may be in the queue */
    KEVENT Quit;                        /* the thread shall end */
    PKTHREAD Thread;
    KSPIN_LOCK Lock;                    /* guards the position */
    LONG Position;
} TREADLE;

/* TRUE when Quit has been set */
static BOOLEAN Pause(TREADLE *t, ULONG Milliseconds)
{
    LARGE_INTEGER time;

    time.QuadPart = -(LONGLONG)Milliseconds * 10000;
    return KeWaitForSingleObject(&t->Quit, Executive, KernelMode, FALSE, &time) == STATUS_SUCCESS;
}

static LONG Step(TREADLE *t, LONG By)
{
    LONG position;
    KIRQL irql;

    KeAcquireSpinLock(&t->Lock, &irql);
    position = t->Position += By;
    KeReleaseSpinLock(&t->Lock, irql);
    return position;
}

static void Move(TREADLE *t, PIRP Irp)
{
    LONG steps = *(PLONG)Irp->AssociatedIrp.SystemBuffer, by = steps < 0 ? -1 : 1;
    NTSTATUS status = STATUS_SUCCESS;

    while (steps != 0 && NT_SUCCESS(status)) {
        if (Pause(t, 1))
            status = STATUS_DEVICE_NOT_READY;
        else if (Irp->Cancel)
            status = STATUS_CANCELLED;
        else
            Step(t, by);
        steps -= by;
    }
    if (NT_SUCCESS(status)) {
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = Step(t, 0);
        Done(Irp, status, sizeof(LONG));
    } else {
        Done(Irp, status, 0);
    }
}

static VOID NTAPI Run(PVOID Context)
{
    TREADLE *t = Context;
    PVOID objects[2];
    PIRP irp;

    objects[0] = &t->Quit;
    objects[1] = &t->Work;
    while (KeWaitForMultipleObjects(2, objects, WaitAny, Executive, KernelMode, FALSE, NULL, NULL) != STATUS_WAIT_0) {
        while (!Pause(t, 0) && (irp = RqTake(&t->Moves, NULL)) != NULL)
            Move(t, irp);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    TREADLE *t = (TREADLE *)f;
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE handle;

    NOT_USED(Raw);
    NOT_USED(Translated);
    KeClearEvent(&t->Quit);
    KeSetEvent(&t->Work, IO_NO_INCREMENT, FALSE);   /* moves from before a stop may wait */
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, Run, t);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&t->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        t->Thread = NULL;
        KeSetEvent(&t->Quit, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

static void EndThread(TREADLE *t)
{
    if (!t->Thread)
        return;
    KeSetEvent(&t->Quit, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(t->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(t->Thread);
    t->Thread = NULL;
}

static void Stop(FRAME *f)
{
#ifdef FIXED
    EndThread((TREADLE *)f);
#else
    NOT_USED(f);
#endif
}

static void Gone(FRAME *f)
{
    TREADLE *t = (TREADLE *)f;

    RqShut(&t->Moves, STATUS_DELETE_PENDING);
    EndThread(t);
}

static NTSTATUS Init(FRAME *f)
{
    TREADLE *t = (TREADLE *)f;

    RqInit(&t->Moves);
    KeInitializeEvent(&t->Work, SynchronizationEvent, FALSE);
    KeInitializeEvent(&t->Quit, NotificationEvent, FALSE);
    KeInitializeSpinLock(&t->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PLONG buffer = Irp->AssociatedIrp.SystemBuffer;
    TREADLE *t = Device->DeviceExtension;
    ULONG done = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&t->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TREADLE_MOVE:
        if (in < sizeof(LONG) || out < sizeof(LONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (*buffer < -MOST_STEPS || *buffer > MOST_STEPS) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        status = FrEnter(&t->F);
        if (!NT_SUCCESS(status))
            break;
        RqPut(&t->Moves, Irp);
        KeSetEvent(&t->Work, IO_NO_INCREMENT, FALSE);
        FrLeave(&t->F);
        IoReleaseRemoveLock(&t->F.RemoveLock, Irp);
        return STATUS_PENDING;

    case IOCTL_TREADLE_POSITION:
        if (out < sizeof(LONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *buffer = Step(t, 0);
        done = sizeof(LONG);
        break;

    case IOCTL_TREADLE_ZERO:
        KeAcquireSpinLock(&t->Lock, &irql);
        t->Position = 0;
        KeReleaseSpinLock(&t->Lock, irql);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(Irp, status, done);
    IoReleaseRemoveLock(&t->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    TREADLE *t = Device->DeviceExtension;

    RqFlush(&t->Moves, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static const FRAME_OPS Ops = { .Init = Init, .Start = Start, .Stop = Stop, .Gone = Gone };

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(TREADLE), &TreadleInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
