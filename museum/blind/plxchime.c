/*
 * plxchime: counts the chimes on the LINTi1 line of a card with a PLX 9050 bridge (edge mode); programs turn the
 * line on and off and read the count.
 *
 * The bug: the interrupt routine clears the line until INTCSR says that it is quiet, with no bound and no look for a
 * card that is gone; all ones from a removed card keep it in the loop for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: endless-loop
 * Needs: device, removal
 */
#include "../include/caller_frame.h"

#define IOCTL_CHIME_TURN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB01, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_CHIME_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB02, METHOD_BUFFERED, FILE_READ_DATA)

#define INTCSR 0x4C
#define LINT1_ENABLE  0x001
#define LINT1_HIGH    0x002
#define LINT1_STATUS  0x004
#define PCI_ENABLE    0x040
#define LINT1_EDGE    0x100
#define LINT1_CLEAR   0x400
#define CHIMING (LINT1_ENABLE | LINT1_HIGH | PCI_ENABLE | LINT1_EDGE)

typedef struct _CHIME {
    FRAME F;
    PUCHAR Bridge;
    ULONG BridgeLen;
    PKINTERRUPT Int;
    volatile BOOLEAN On;        /* powered and connected; changed at DIRQL */
    BOOLEAN Turned;             /* by programs; changed at DIRQL */
    ULONG Count;
} CHIME, *PCHIME;

static const GUID ChimeClass = {0x6c1e2a09, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x09}};

static ULONG Get(PCHIME c) { return READ_REGISTER_ULONG((PULONG)(c->Bridge + INTCSR)); }
static VOID Put(PCHIME c, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(c->Bridge + INTCSR), v); }

static BOOLEAN NTAPI ChimeIsr(PKINTERRUPT interrupt, PVOID context)
{
    PCHIME c = context;
    BOOLEAN ours = FALSE;
    ULONG v;
#ifdef FIXED
    ULONG rounds;
#endif

    UNREFERENCED_PARAMETER(interrupt);
    if (!c->On || !c->Turned)
        return FALSE;
#ifdef FIXED
    for (rounds = 0; rounds < 8; rounds++) {
        v = Get(c);
        if (v == 0xFFFFFFFFu)
            break;
#else
    for (;;) {
        v = Get(c);
#endif
        if ((v & (LINT1_ENABLE | LINT1_STATUS)) != (LINT1_ENABLE | LINT1_STATUS))
            break;
        Put(c, CHIMING | LINT1_CLEAR);
        c->Count++;
        ours = TRUE;
    }
    return ours;
}

/* At DIRQL: makes the card follow On and Turned. */
static BOOLEAN NTAPI Apply(PVOID context)
{
    PCHIME c = context;

    if (c->On)
        Put(c, c->Turned ? CHIMING | LINT1_CLEAR : 0);
    return TRUE;
}

static BOOLEAN NTAPI LineOn(PVOID context)
{
    ((PCHIME)context)->On = TRUE;
    return Apply(context);
}

static BOOLEAN NTAPI LineOff(PVOID context)
{
    ((PCHIME)context)->On = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI Silence(PVOID context)
{
    Put(context, 0);
    return TRUE;
}

static BOOLEAN NTAPI TurnOn(PVOID context)
{
    ((PCHIME)context)->Turned = TRUE;
    return Apply(context);
}

static BOOLEAN NTAPI TurnOff(PVOID context)
{
    ((PCHIME)context)->Turned = FALSE;
    return Apply(context);
}

typedef struct _FETCH {
    PCHIME Chime;
    ULONG Count;
} FETCH;

static BOOLEAN NTAPI FetchCount(PVOID context)
{
    FETCH *fetch = context;

    fetch->Count = fetch->Chime->Count;
    fetch->Chime->Count = 0;
    return TRUE;
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PCHIME c = dev->DeviceExtension;
    NTSTATUS status;

    if (res->Mems == 0 || res->MemLen[0] < 0x54 || !res->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    c->BridgeLen = res->MemLen[0];
    c->Bridge = MmMapIoSpace(res->Mem[0], c->BridgeLen, MmNonCached);
    if (c->Bridge == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Put(c, 0);
    status = FrameConnect(res, &c->Int, ChimeIsr, c);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(c->Bridge, c->BridgeLen);
        c->Bridge = NULL;
        return status;
    }
    KeSynchronizeExecution(c->Int, LineOn, c);
    FrameReady(&c->F);
    return STATUS_SUCCESS;
}

static VOID HwHold(PDEVICE_OBJECT dev)
{
    FrameUnready(FR(dev));
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    FrameUnready(FR(dev));
}

static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    PCHIME c = dev->DeviceExtension;

    if (touchable)
        KeSynchronizeExecution(c->Int, Silence, c);
    KeSynchronizeExecution(c->Int, LineOff, c);
    IoDisconnectInterrupt(c->Int);
    c->Int = NULL;
    MmUnmapIoSpace(c->Bridge, c->BridgeLen);
    c->Bridge = NULL;
}

static VOID HwSleep(PDEVICE_OBJECT dev)
{
    PCHIME c = dev->DeviceExtension;

    FrameUnready(&c->F);
    KeSynchronizeExecution(c->Int, Silence, c);
    KeSynchronizeExecution(c->Int, LineOff, c);
}

static VOID HwWake(PDEVICE_OBJECT dev)
{
    PCHIME c = dev->DeviceExtension;

    KeSynchronizeExecution(c->Int, LineOn, c);
    FrameReady(&c->F);
}

static NTSTATUS NTAPI ChimeControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PCHIME c = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    FETCH fetch = { c, 0 };
    NTSTATUS status = IoAcquireRemoveLock(&c->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CHIME_TURN:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = FrameEnter(&c->F);
        if (NT_SUCCESS(status)) {
            KeSynchronizeExecution(c->Int, *buffer != 0 ? TurnOn : TurnOff, c);
            FrameLeave(&c->F);
        }
        break;
    case IOCTL_CHIME_COUNT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = FrameEnter(&c->F);
        if (NT_SUCCESS(status)) {
            KeSynchronizeExecution(c->Int, FetchCount, &fetch);
            FrameLeave(&c->F);
            *buffer = fetch.Count;
            info = sizeof(ULONG);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&c->F.Remove, irp);
    return status;
}

static NTSTATUS NTAPI ChimeAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = FrameAdd(driver, pdo, &ChimeClass, sizeof(CHIME), DO_BUFFERED_IO, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, ChimeAdd);
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ChimeControl;
    return STATUS_SUCCESS;
}
