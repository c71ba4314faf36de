/*
 * kelpcard: a kelp baler's conveyor on a PCI card of its own: a memory BAR with control, status, speed and count, and an interrupt for each
 * bale. Programs set the speed, read the log of bales and wait for the next one.
 *
 * The bug: when the interrupt cannot be connected, starting fails and frees the log, but leaves the card's registers mapped.
 *
 * Device: PCI\VEN_1DA7&DEV_0061
 * Rule: io-space-leak, io-space-still-mapped
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define TAG 'plek'

#define IOCTL_KELP_SPEED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9b0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_KELP_LOG   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9b1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_KELP_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9b2, METHOD_BUFFERED, FILE_READ_ACCESS)

#define KELP_CONTROL 0x00
#define CONTROL_RUN 1
#define CONTROL_INTERRUPT 2
#define KELP_STATUS 0x04        /* a zero ends what is reported */
#define STATUS_BALE 1
#define KELP_SPEED 0x08
#define KELP_BYTES 0x10
#define GONE 0xffffffffu

#define LOG 64

static const GUID KelpClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x0c } };

typedef struct {
    FRAME Frame;
    FRAME_QUEUE Waiters;
    volatile UCHAR *Regs;
    ULONG RegsLength;
    PKINTERRUPT Interrupt;
    volatile LONG Awake;        /* the ISR may look at the card */

    KSPIN_LOCK Lock;            /* of what follows */
    ULONG Speed;
    ULONG Bales;
    LARGE_INTEGER *Log;         /* the last LOG bales, in a ring */
} KELP;

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    KELP *k = Context;
    ULONG status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!k->Awake)
        return FALSE;
    status = Rd(k->Regs, KELP_STATUS);
    if (status == GONE || !(status & STATUS_BALE))
        return FALSE;
    Wr(k->Regs, KELP_STATUS, status & ~STATUS_BALE);
    IoRequestDpc(k->Frame.Self, NULL, NULL);
    return TRUE;
}

static void NTAPI BaleDpc(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Unused, PVOID Context)
{
    KELP *k = Device->DeviceExtension;
    LIST_ENTRY answered;
    ULONG bales;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Unused);
    UNREFERENCED_PARAMETER(Context);
    KeAcquireSpinLockAtDpcLevel(&k->Lock);
    KeQuerySystemTime(&k->Log[k->Bales % LOG]);
    bales = ++k->Bales;
    KeReleaseSpinLockFromDpcLevel(&k->Lock);
    InitializeListHead(&answered);          /* those who wait now, not those who come back at once */
    while ((irp = FrameQueueTake(&k->Waiters)) != NULL)
        InsertTailList(&answered, &irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&answered)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&answered), IRP, Tail.Overlay.ListEntry);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = bales;
        FrameEndUngated(&k->Frame, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static void Run(KELP *K, ULONG Speed)
{
    Wr(K->Regs, KELP_SPEED, Speed);
    Wr(K->Regs, KELP_CONTROL, CONTROL_INTERRUPT | (Speed ? CONTROL_RUN : 0));
}

static NTSTATUS Wait(KELP *K, PIRP Irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&K->Frame.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return FrameEndUngated(&K->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    return FrameQueuePut(&K->Waiters, Irp);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    KELP *k = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LARGE_INTEGER *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG speed, count, i;
    NTSTATUS status;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_KELP_WAIT)
        return Wait(k, Irp);
    status = FrameBegin(&k->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KELP_SPEED:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return FrameEnd(&k->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        speed = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (speed > 120)
            return FrameEnd(&k->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&k->Lock, &irql);
        k->Speed = speed;
        Run(k, speed);
        KeReleaseSpinLock(&k->Lock, irql);
        return FrameEnd(&k->Frame, Irp, STATUS_SUCCESS, 0);

    case IOCTL_KELP_LOG:
        count = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(LARGE_INTEGER);
        if (count == 0)
            return FrameEnd(&k->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (count > LOG)
            count = LOG;
        KeAcquireSpinLock(&k->Lock, &irql);
        if (count > k->Bales)
            count = k->Bales;
        for (i = 0; i < count; i++)
            out[i] = k->Log[(k->Bales - count + i) % LOG];
        KeReleaseSpinLock(&k->Lock, irql);
        return FrameEnd(&k->Frame, Irp, STATUS_SUCCESS, (ULONG_PTR)count * sizeof(LARGE_INTEGER));
    }
    return FrameEnd(&k->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    KELP *k = Device->DeviceExtension;

    FrameQueueFlush(&k->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    KELP *k = (KELP *)F;
    FRAME_RESOURCES r;
    NTSTATUS status;
    KIRQL irql;

    FrameResources(Translated, &r);
    if (r.Memories == 0 || r.Memory[0].Length < KELP_BYTES || !r.HasInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    k->RegsLength = r.Memory[0].Length;
    k->Regs = MmMapIoSpace(r.Memory[0].Base, k->RegsLength, MmNonCached);
    if (!k->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    k->Log = ExAllocatePoolWithTag(NonPagedPoolNx, LOG * sizeof(LARGE_INTEGER), TAG);
    if (!k->Log) {
        MmUnmapIoSpace((PVOID)k->Regs, k->RegsLength);
        k->Regs = NULL;
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(k->Log, LOG * sizeof(LARGE_INTEGER));
    k->Bales = 0;
    Wr(k->Regs, KELP_CONTROL, 0);
    Wr(k->Regs, KELP_STATUS, 0);
    InterlockedExchange(&k->Awake, 1);
    status = FrameConnect(&r, Isr, k, &k->Interrupt);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(k->Log, TAG);
        k->Log = NULL;
#ifdef FIXED
        MmUnmapIoSpace((PVOID)k->Regs, k->RegsLength);
        k->Regs = NULL;
#endif
        return status;
    }
    KeAcquireSpinLock(&k->Lock, &irql);
    Run(k, k->Speed);           /* 0 at first; after a stop what it was before */
    KeReleaseSpinLock(&k->Lock, irql);
    return STATUS_SUCCESS;
}

static BOOLEAN NTAPI FallAsleep(PVOID Context)
{
    KELP *k = Context;

    Wr(k->Regs, KELP_CONTROL, 0);
    Wr(k->Regs, KELP_STATUS, 0);
    k->Awake = 0;
    return TRUE;
}

static void Stop(FRAME *F)
{
    KELP *k = (KELP *)F;

    if (FrameAlive(F))
        KeSynchronizeExecution(k->Interrupt, FallAsleep, k);
    IoDisconnectInterrupt(k->Interrupt);
    KeFlushQueuedDpcs();
    ExFreePoolWithTag(k->Log, TAG);
    k->Log = NULL;
    MmUnmapIoSpace((PVOID)k->Regs, k->RegsLength);
    k->Regs = NULL;
}

static void Flush(FRAME *F)
{
    FrameQueueClose(&((KELP *)F)->Waiters);
}

static void PowerDown(FRAME *F)
{
    KELP *k = (KELP *)F;

    KeSynchronizeExecution(k->Interrupt, FallAsleep, k);
}

static void PowerUp(FRAME *F)
{
    KELP *k = (KELP *)F;
    KIRQL irql;

    InterlockedExchange(&k->Awake, 1);
    KeAcquireSpinLock(&k->Lock, &irql);
    Run(k, k->Speed);
    KeReleaseSpinLock(&k->Lock, irql);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    KELP *k;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(KELP), &KelpClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    k = (KELP *)f;
    f->Start = Start;
    f->Stop = Stop;
    f->Flush = Flush;
    f->PowerDown = PowerDown;
    f->PowerUp = PowerUp;
    FrameQueueInit(&k->Waiters, f, FALSE);
    KeInitializeSpinLock(&k->Lock);
    IoInitializeDpcRequest(f->Self, BaleDpc);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}
