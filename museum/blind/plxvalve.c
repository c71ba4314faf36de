/*
 * plxvalve: pneumatic valves on the user pins of a PLX 9052: USER0 and USER1 (CNTRL bits 0-5) drive two valves, USER2
 * and USER3 (bits 6-11) are their end switches, which a timer's DPC reads ten times a second to count the strokes.
 *
 * The bug: the polling timer goes on while the card is in D3, and its DPC reads CNTRL of a card that is powered down.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: power
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"
#include "../include/waiting_requests.h"

#define PLX_CNTRL  0x50
#define VALVES     2
#define PIN_WAIT(n)  (1u << (3 * (n)))          /* the pin's other use */
#define PIN_OUT(n)   (2u << (3 * (n)))
#define PIN_DATA(n)  (4u << (3 * (n)))

#define IOCTL_VALVE_SET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_VALVE_STROKES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_VALVE_AWAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E2, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID ValveInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x0B } };

typedef struct VALVE_SET { ULONG Valve, Open; } VALVE_SET;

typedef struct DEV {
    FDO F;
    PUCHAR Bridge;
    SIZE_T BridgeBytes;
    KTIMER Timer;
    KDPC Dpc;
    WAITQ Awaiting;             /* the next stroke */
    /* under HwLock: */
    BOOLEAN Open[VALVES], Switch[VALVES];
    ULONG Strokes[VALVES];
} DEV;

static PULONG Cntrl(DEV *d) { return (PULONG)(d->Bridge + PLX_CNTRL); }

/* Under HwLock, live: sets all four pins up. */
static VOID ValveApply(DEV *d)
{
    ULONG n, v = READ_REGISTER_ULONG(Cntrl(d));

    for (n = 0; n < VALVES; n++) {
        v &= ~(PIN_WAIT(n) | PIN_DATA(n) | PIN_WAIT(n + VALVES) | PIN_OUT(n + VALVES));
        v |= PIN_OUT(n) | (d->Open[n] ? PIN_DATA(n) : 0);
    }
    WRITE_REGISTER_ULONG(Cntrl(d), v);
}

static VOID NTAPI ValvePoll(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    DEV *d = context;
    ULONG n, v, strokes[VALVES];
    BOOLEAN stroke = FALSE;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
#ifdef FIXED
    if (!d->F.Live) {
        KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
        return;
    }
#endif
    v = READ_REGISTER_ULONG(Cntrl(d));
    for (n = 0; n < VALVES; n++) {
        BOOLEAN now = (v & PIN_DATA(n + VALVES)) != 0;
        if (v != 0xFFFFFFFF && now != d->Switch[n]) {
            d->Switch[n] = now;
            d->Strokes[n]++;
            stroke = TRUE;
        }
        strokes[n] = d->Strokes[n];
    }
    KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
    while (stroke && (irp = WaitqTake(&d->Awaiting, NULL)) != NULL) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, strokes, sizeof(strokes));
        WaitqFinish(&d->Awaiting, irp, STATUS_SUCCESS, sizeof(strokes));
    }
}

static VOID ValveTimer(DEV *d)
{
    LARGE_INTEGER due = { .QuadPart = -1000000 };
    KeSetTimerEx(&d->Timer, due, 100, &d->Dpc);
}

static NTSTATUS ValveRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VALVE_SET: {
        VALVE_SET *set = irp->AssociatedIrp.SystemBuffer;
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(*set) || set->Valve >= VALVES)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        if (f->Live) {
            d->Open[set->Valve] = set->Open != 0;
            ValveApply(d);
        } else {
            status = STATUS_DEVICE_NOT_READY;
        }
        KeReleaseSpinLock(&f->HwLock, irql);
        return status;
    }
    case IOCTL_VALVE_STROKES:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(d->Strokes))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&f->HwLock, &irql);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, d->Strokes, sizeof(d->Strokes));
        KeReleaseSpinLock(&f->HwLock, irql);
        irp->IoStatus.Information = sizeof(d->Strokes);
        return STATUS_SUCCESS;
    case IOCTL_VALVE_AWAIT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(d->Strokes))
            return STATUS_BUFFER_TOO_SMALL;
        return WaitqPut(&d->Awaiting, irp);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID ValveUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    KeCancelTimer(&d->Timer);
    KeFlushQueuedDpcs();
    if (d->Bridge) {
        MmUnmapIoSpace(d->Bridge, d->BridgeBytes);
        d->Bridge = NULL;
    }
}

static NTSTATUS ValveMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bridge = FdoFind(resources, CmResourceTypeMemory, 0);

    if (!bridge || bridge->u.Memory.Length < 0x54)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->BridgeBytes = bridge->u.Memory.Length;
    d->Bridge = MmMapIoSpace(bridge->u.Memory.Start, d->BridgeBytes, MmNonCached);
    return d->Bridge ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID ValveWake(FDO *f)
{
    DEV *d = (DEV *)f;

    ValveApply(d);
    ValveTimer(d);
}

static VOID ValveQuiet(FDO *f, BOOLEAN present)
{
    DEV *d = (DEV *)f;
#ifdef FIXED
    KeCancelTimer(&d->Timer);
#endif
    if (present) {              /* closes the valves */
        ULONG v = READ_REGISTER_ULONG(Cntrl(d));
        WRITE_REGISTER_ULONG(Cntrl(d), v & ~(PIN_DATA(0) | PIN_DATA(1)));
    }
}

static VOID ValveFlush(FDO *f, PFILE_OBJECT file)
{
    DEV *d = (DEV *)f;

    if (file)
        WaitqDrain(&d->Awaiting, file, STATUS_CANCELLED);
    else
        WaitqClose(&d->Awaiting, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS ValveInit(FDO *f)
{
    DEV *d = (DEV *)f;

    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->Dpc, ValvePoll, d);
    WaitqInit(&d->Awaiting, &f->RemoveLock);
    return STATUS_SUCCESS;
}

static VOID ValveFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &ValveInterface,
    ValveInit, ValveFree, ValveMap, ValveUnmap, ValveWake, ValveQuiet, ValveFlush, ValveRequest, NULL
};
