/*
 * edusignl: passes signals between programs by way of the edu card's interrupt: a program raises
 * bits, the card interrupts with them, and requests that wait for one of them are answered. Bits
 * that no one waits for are kept.
 *
 * The bug: the DPC takes the bits that the service routine has collected by a plain read and a plain
 * write of zero; bits of an interrupt that comes in between are lost.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, request-forgotten
 * Needs: schedule, device
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID SignlInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x08 } };

#define IOCTL_SIGNL_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SIGNL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SIGNL_PEEK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x962, METHOD_BUFFERED, FILE_READ_ACCESS)

#define EDU_ID         0x00
#define EDU_STATUS     0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_RAISE  0x60
#define EDU_IRQ_ACK    0x64

#define SIGNL_BITS 0xFFFF

typedef struct _SIGNL_STATE {
    ULONG Kept;
    ULONG Interrupts;
} SIGNL_STATE;

typedef struct _SIGNL_EXT {
    FR_DEV Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    FR_IRQ Irq;
    KDPC Dpc;
    ULONG Bits;  /* under the interrupt's lock, as is Count */
    ULONG Count;
    FR_QUEUE Waiting;
    KSPIN_LOCK Lock; /* what follows; before the queue's lock */
    SIGNL_STATE State;
} SIGNL_EXT, *PSIGNL_EXT;

typedef struct _SIGNL_FETCH {
    PSIGNL_EXT Ext;
    ULONG Bits;
    ULONG Count;
} SIGNL_FETCH;

static ULONG SignlGet(PSIGNL_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID SignlPut(PSIGNL_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static BOOLEAN SignlService(PVOID Context)
{
    PSIGNL_EXT x = Context;
    ULONG bits = SignlGet(x, EDU_IRQ_STATUS);

    if (bits == 0 || bits == ~0u)
        return FALSE;
    SignlPut(x, EDU_IRQ_ACK, bits);
    x->Bits |= bits & SIGNL_BITS;
    x->Count++;
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI SignlServiceOnce(PVOID Context)
{
    return SignlService(Context);
}

static BOOLEAN NTAPI SignlFetch(PVOID Context)
{
    SIGNL_FETCH *f = Context;
    f->Bits = f->Ext->Bits;
    f->Ext->Bits = 0;
    f->Count = f->Ext->Count;
    return TRUE;
}

static BOOLEAN SignlWants(PIRP Irp, PVOID Context)
{
    return (*(ULONG *)Irp->AssociatedIrp.SystemBuffer & *(ULONG *)Context) != 0;
}

/* Answers requests that wait for bits that are kept. */
static VOID SignlServe(PSIGNL_EXT x)
{
    for (;;) {
        ULONG answer = 0;
        KIRQL irql;
        PIRP irp;

        KeAcquireSpinLock(&x->Lock, &irql);
        irp = FrQueueGetIf(&x->Waiting, SignlWants, &x->State.Kept);
        if (irp) {
            answer = x->State.Kept & *(ULONG *)irp->AssociatedIrp.SystemBuffer;
            x->State.Kept &= ~answer;
        }
        KeReleaseSpinLock(&x->Lock, irql);
        if (!irp)
            return;
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = answer;
        FrDone(&x->Frame, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI SignlDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PSIGNL_EXT x = Context;
    SIGNL_FETCH fetch;

    FR_UNUSED_OF_DPC();
    fetch.Ext = x;
#ifdef FIXED
    KeSynchronizeExecution(x->Irq.Object, SignlFetch, &fetch);
#else
    SignlFetch(&fetch);
#endif
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    x->State.Kept |= fetch.Bits;
    x->State.Interrupts = fetch.Count;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    SignlServe(x);
}

static NTSTATUS SignlControl(PSIGNL_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SIGNL_RAISE:
        if (inLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*buffer == 0 || (*buffer & ~SIGNL_BITS))
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        SignlPut(x, EDU_IRQ_RAISE, *buffer);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    case IOCTL_SIGNL_WAIT:
        if (inLength < sizeof(ULONG) || outLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if ((*buffer & SIGNL_BITS) == 0)
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        FrQueuePut(&x->Waiting, Irp);
        SignlServe(x);
        return STATUS_PENDING;
    case IOCTL_SIGNL_PEEK:
        if (outLength < sizeof(SIGNL_STATE))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->Lock, &irql);
        *(SIGNL_STATE *)buffer = x->State;
        KeReleaseSpinLock(&x->Lock, irql);
        return FrDone(d, Irp, STATUS_SUCCESS, sizeof(SIGNL_STATE));
    default:
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI SignlRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSIGNL_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (NT_SUCCESS(status)) {
        status = SignlControl(x, Irp);
        FrLeave(d);
    } else
        FrDone(d, Irp, status, 0);
    FrEnd(d);
    return status;
}

static NTSTATUS NTAPI SignlCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSIGNL_EXT x = Device->DeviceExtension;
    NTSTATUS status = FrBegin(&x->Frame, Irp);

    if (!NT_SUCCESS(status))
        return status;
    FrQueueFlush(&x->Waiting, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS SignlInit(PFR_DEV d)
{
    PSIGNL_EXT x = (PSIGNL_EXT)d;
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, SignlDpc, x);
    FrQueueInit(&x->Waiting, d);
    return STATUS_SUCCESS;
}

static NTSTATUS SignlStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PSIGNL_EXT x = (PSIGNL_EXT)d;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Resources, CmResourceTypeMemory, 0);

    if (!memory || memory->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLength = memory->u.Memory.Length;
    x->Regs = MmMapIoSpace(memory->u.Memory.Start, x->RegsLength, MmNonCached);
    if (!x->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((SignlGet(x, EDU_ID) & 0xFFFF) != 0x00ED)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    SignlPut(x, EDU_STATUS, 0);
    SignlPut(x, EDU_IRQ_ACK, SignlGet(x, EDU_IRQ_STATUS));
    return FrIrqConnect(&x->Irq, Resources, SignlService, x);
}

/* What was raised is still taken; nothing can be raised any more. */
static VOID SignlQuiet(PSIGNL_EXT x, BOOLEAN Accessible)
{
    if (Accessible)
        KeSynchronizeExecution(x->Irq.Object, SignlServiceOnce, x);
    FrIrqEnable(&x->Irq, FALSE);
    KeFlushQueuedDpcs();
}

static VOID SignlStop(PFR_DEV d)
{
    PSIGNL_EXT x = (PSIGNL_EXT)d;

    if (x->Irq.Object) {
        SignlQuiet(x, FrPowered(d));
        FrIrqDisconnect(&x->Irq);
    }
    if (x->Regs) {
        MmUnmapIoSpace(x->Regs, x->RegsLength);
        x->Regs = NULL;
    }
}

static VOID SignlFlush(PFR_DEV d, NTSTATUS Status)
{
    FrQueueFlush(&((PSIGNL_EXT)d)->Waiting, NULL, Status);
}

static VOID SignlPowerDown(PFR_DEV d)
{
    SignlQuiet((PSIGNL_EXT)d, TRUE);
}

static VOID SignlPowerUp(PFR_DEV d)
{
    PSIGNL_EXT x = (PSIGNL_EXT)d;
    SignlPut(x, EDU_STATUS, 0);
    SignlPut(x, EDU_IRQ_ACK, SignlGet(x, EDU_IRQ_STATUS));
    FrIrqEnable(&x->Irq, TRUE);
}

static const FR_OPS SignlOps = {
    sizeof(SIGNL_EXT), &SignlInterface, DO_BUFFERED_IO, SignlInit, SignlStart, SignlStop, SignlFlush,
    SignlPowerDown, SignlPowerUp, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &SignlOps);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SignlCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SignlRequest;
    return STATUS_SUCCESS;
}
