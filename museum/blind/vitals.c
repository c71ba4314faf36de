/*
 * vitals: feels the pulse of QEMU's edu card. Ten times a second a pattern is written to the card's liveness register, which must answer its inverse; a
 * program waits for the next beat and learns whether the card answered.
 *
 * The bug: the timer is set only if the driver does not remember that it runs, and stopping the device cancels it without forgetting that. After a stop and a
 * start again (the system moved the card's memory) there is no beat any more, and every waiting program hangs.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define VIT_PERIOD 100 /* ms */
#define VIT_AT_ONCE 256 /* waiting requests ended by one beat */

#define EDU_ID 0x00
#define EDU_LIVENESS 0x04
#define EDU_STATUS 0x20
#define EDU_INTERRUPT 0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_REGISTERS 0x1000

#define EDU_IDENTITY 0x010000ed

#define IOCTL_VITALS_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_VITALS_RECORD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID VitInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x08}};

typedef struct _VIT_RECORD {
    ULONG Beats;
    ULONG Missed;
    ULONG LastWritten;
    ULONG LastRead;
} VIT_RECORD, *PVIT_RECORD;

typedef struct _VIT_EXT {
    YK Yk;
    PUCHAR Regs;
    KTIMER Timer;
    KDPC Dpc;
    YK_QUEUE Waiting;
    BOOLEAN Ticking; /* the timer is set; it goes on in sleep, where a beat does nothing */
    VIT_RECORD Record; /* under HwLock */
} VIT_EXT, *PVIT_EXT;

DRIVER_INITIALIZE DriverEntry;

static ULONG VitGet(PVIT_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID VitPut(PVIT_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static VOID NTAPI VitBeat(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PVIT_EXT x = Context;
    NTSTATUS Status = STATUS_SUCCESS;
    BOOLEAN Felt;
    VIT_RECORD Record;
    ULONG Pattern, i;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Felt = x->Yk.Live;
    if (Felt) {
        Pattern = 0x5a000001 + x->Record.Beats * 0x10; /* its inverse is never all ones */
        VitPut(x, EDU_LIVENESS, Pattern);
        x->Record.LastWritten = Pattern;
        x->Record.LastRead = VitGet(x, EDU_LIVENESS);
        x->Record.Beats++;
        if (x->Record.LastRead != ~Pattern) {
            x->Record.Missed++;
            Status = STATUS_DEVICE_DATA_ERROR;
        }
    }
    Record = x->Record;
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (!Felt)
        return;
    for (i = 0; i < VIT_AT_ONCE; i++) {
        Irp = IoCsqRemoveNextIrp(&x->Waiting.Csq, NULL);
        if (Irp == NULL)
            break;
        if (NT_SUCCESS(Status)) {
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Record, sizeof(Record));
            YkFinish(&x->Yk, Irp, STATUS_SUCCESS, sizeof(Record));
        } else {
            YkFinish(&x->Yk, Irp, Status, 0);
        }
    }
}

static VOID VitEnable(PYK d)
{
    PVIT_EXT x = CONTAINING_RECORD(d, VIT_EXT, Yk);
    LARGE_INTEGER Due;

    VitPut(x, EDU_STATUS, 0); /* no interrupts: none is connected */
    VitPut(x, EDU_ACKNOWLEDGE, VitGet(x, EDU_INTERRUPT));
    if (!x->Ticking) {
        x->Ticking = TRUE;
        Due.QuadPart = -(LONGLONG)VIT_PERIOD * 10000;
        KeSetTimerEx(&x->Timer, Due, VIT_PERIOD, &x->Dpc);
    }
}

static NTSTATUS VitRequest(PYK d, PIRP Irp)
{
    PVIT_EXT x = CONTAINING_RECORD(d, VIT_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    KIRQL Irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(VIT_RECORD))
        return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VITALS_NEXT:
        return YkqWait(&x->Waiting, Irp);
    case IOCTL_VITALS_RECORD:
        KeAcquireSpinLock(&d->HwLock, &Irql);
        *(PVIT_RECORD)Irp->AssociatedIrp.SystemBuffer = x->Record;
        KeReleaseSpinLock(&d->HwLock, Irql);
        return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(VIT_RECORD));
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS VitStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PVIT_EXT x = CONTAINING_RECORD(d, VIT_EXT, Yk);

    for (; Count != 0; Count--, r++) {
        if (r->Type == CmResourceTypeMemory && r->u.Memory.Length >= EDU_REGISTERS)
            break;
    }
    if (Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Regs = MmMapIoSpace(r->u.Memory.Start, EDU_REGISTERS, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (VitGet(x, EDU_ID) != EDU_IDENTITY)
        return STATUS_NO_SUCH_DEVICE;
    return STATUS_SUCCESS;
}

static VOID VitStop(PYK d)
{
    PVIT_EXT x = CONTAINING_RECORD(d, VIT_EXT, Yk);

    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
#ifdef FIXED
    x->Ticking = FALSE;
#endif
    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, EDU_REGISTERS);
        x->Regs = NULL;
    }
}

static NTSTATUS VitInit(PYK d)
{
    PVIT_EXT x = CONTAINING_RECORD(d, VIT_EXT, Yk);

    KeInitializeTimerEx(&x->Timer, SynchronizationTimer);
    KeInitializeDpc(&x->Dpc, VitBeat, x);
    return YkqInit(d, &x->Waiting);
}

static VOID VitCleanup(PYK d, PFILE_OBJECT File)
{
    YkqDrain(&CONTAINING_RECORD(d, VIT_EXT, Yk)->Waiting, File, STATUS_CANCELLED);
}

static VOID VitGone(PYK d)
{
    YkqShut(&CONTAINING_RECORD(d, VIT_EXT, Yk)->Waiting);
}

static const YK_OPS VitOps = {
    .ExtensionSize = sizeof(VIT_EXT),
    .Interface = &VitInterface,
    .Init = VitInit,
    .Start = VitStart,
    .Stop = VitStop,
    .Enable = VitEnable,
    .Request = VitRequest,
    .Cleanup = VitCleanup,
    .Gone = VitGone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &VitOps);
}
