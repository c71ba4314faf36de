/*
 * edusnooz: factorials on QEMU's edu card without its interrupt: a timer looks every five milliseconds whether the card
 * has finished.
 *
 * The bug: before the device goes to D3 the queue is not held, so that the timer's DPC (and requests that come then)
 * read and write the registers of the sleeping card.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#include "../include/serial_queue.h"

#define IOCTL_SNOOZ_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA21, METHOD_BUFFERED, FILE_READ_DATA | FILE_WRITE_DATA)
#define IOCTL_SNOOZ_POLLS     CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA22, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define POLL_MS 5
#define MOST_POLLS 400
#define R_ID 0x00
#define R_FACTORIAL 0x08
#define R_STATUS 0x20
#define COMPUTING 1

typedef struct _SNOOZ {
    FRAME F;
    SERQ Q;
    volatile ULONG *Regs;
    ULONG RegsLen;
    KTIMER Timer;
    KDPC Dpc;
    ULONG PollsLeft;        /* under the queue's lock */
    LONG Polls;
} SNOOZ, *PSNOOZ;

static const GUID SnoozClass = {0x6c1e2a08, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x08}};

static ULONG In(PSNOOZ s, ULONG r) { return READ_REGISTER_ULONG((PULONG)&s->Regs[r / 4]); }
static VOID Out(PSNOOZ s, ULONG r, ULONG v) { WRITE_REGISTER_ULONG((PULONG)&s->Regs[r / 4], v); }

static VOID Arm(PSNOOZ s)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * POLL_MS;
    KeSetTimer(&s->Timer, due, &s->Dpc);
}

static BOOLEAN SnoozBegin(PFRAME f, PIRP irp)
{
    PSNOOZ s = CONTAINING_RECORD(f, SNOOZ, F);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG card;
    KIRQL irql;

    KeAcquireSpinLock(&s->Q.Lock, &irql);
    card = In(s, R_STATUS);
    if (card == 0xFFFFFFFFu) {
        status = STATUS_NO_SUCH_DEVICE;
    } else if (card & COMPUTING) {
        status = STATUS_DEVICE_BUSY;
    } else {
        Out(s, R_FACTORIAL, *(PULONG)irp->AssociatedIrp.SystemBuffer);
        s->PollsLeft = MOST_POLLS;
        s->Q.Current = irp;
        Arm(s);
    }
    KeReleaseSpinLock(&s->Q.Lock, irql);
    if (!NT_SUCCESS(status)) {
        SerqAnswer(&s->Q, irp, status, 0);
        return FALSE;
    }
    return TRUE;
}

static VOID NTAPI SnoozPoll(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PSNOOZ s = context;
    PIRP irp = NULL;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG card, result = 0;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&s->Q.Lock);
    if (s->Q.Current != NULL) {
        InterlockedIncrement(&s->Polls);
        card = In(s, R_STATUS);
        if (card == 0xFFFFFFFFu) {
            status = STATUS_NO_SUCH_DEVICE;
            irp = SerqClaim(&s->Q);
        } else if (!(card & COMPUTING)) {
            result = In(s, R_FACTORIAL);
            irp = SerqClaim(&s->Q);
        } else if (--s->PollsLeft == 0) {
            status = STATUS_IO_TIMEOUT;
            irp = SerqClaim(&s->Q);
        } else {
            Arm(s);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&s->Q.Lock);
    if (irp == NULL)
        return;
    if (NT_SUCCESS(status))
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
    SerqFinish(&s->Q, irp, status, NT_SUCCESS(status) ? sizeof result : 0);
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PSNOOZ s = dev->DeviceExtension;

    if (res->Mems == 0 || res->MemLen[0] < 0x1000)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    s->RegsLen = res->MemLen[0];
    s->Regs = MmMapIoSpace(res->Mem[0], s->RegsLen, MmNonCached);
    if (s->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((In(s, R_ID) & 0xFF) != 0xED) {
        MmUnmapIoSpace((PVOID)s->Regs, s->RegsLen);
        s->Regs = NULL;
        return STATUS_DEVICE_DOES_NOT_EXIST;
    }
    Out(s, R_STATUS, 0);        /* no interrupts */
    SerqOpen(&s->Q);
    return STATUS_SUCCESS;
}

static VOID HwHold(PDEVICE_OBJECT dev)
{
    SerqHold(&((PSNOOZ)dev->DeviceExtension)->Q);
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    SerqKill(&((PSNOOZ)dev->DeviceExtension)->Q);
}

static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    PSNOOZ s = dev->DeviceExtension;

    UNREFERENCED_PARAMETER(touchable);
    KeCancelTimer(&s->Timer);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace((PVOID)s->Regs, s->RegsLen);
    s->Regs = NULL;
}

static VOID HwSleep(PDEVICE_OBJECT dev)
{
#ifdef FIXED
    SerqHold(&((PSNOOZ)dev->DeviceExtension)->Q);
#else
    UNREFERENCED_PARAMETER(dev);
#endif
}

static VOID HwWake(PDEVICE_OBJECT dev)
{
    PSNOOZ s = dev->DeviceExtension;

    Out(s, R_STATUS, 0);
    SerqOpen(&s->Q);
}

static NTSTATUS NTAPI SnoozControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PSNOOZ s = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&s->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SNOOZ_FACTORIAL:
        if (in >= sizeof(ULONG) && out >= sizeof(ULONG))
            return SerqSubmit(&s->Q, irp);
        status = STATUS_BUFFER_TOO_SMALL;
        break;
    case IOCTL_SNOOZ_POLLS:
        if (out < sizeof(LONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PLONG)irp->AssociatedIrp.SystemBuffer = s->Polls;
        info = sizeof(LONG);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    SerqAnswer(&s->Q, irp, status, info);
    return status;
}

static NTSTATUS NTAPI SnoozCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    SerqPurge(&((PSNOOZ)dev->DeviceExtension)->Q, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
    return FrameComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SnoozAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    PSNOOZ s;
    NTSTATUS status = FrameAdd(driver, pdo, &SnoozClass, sizeof(SNOOZ), DO_BUFFERED_IO, &dev);

    if (!NT_SUCCESS(status))
        return status;
    s = dev->DeviceExtension;
    KeInitializeTimer(&s->Timer);
    KeInitializeDpc(&s->Dpc, SnoozPoll, s);
    status = SerqInit(&s->Q, &s->F, SnoozBegin);
    if (!NT_SUCCESS(status)) {
        FrameUndoAdd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, SnoozAdd);
    driver->MajorFunction[IRP_MJ_CLEANUP] = SnoozCleanup;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SnoozControl;
    return STATUS_SUCCESS;
}
