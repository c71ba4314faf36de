/*
 * plxpeal: sets an application's event each time line 1 of a PLX 9050 board has been up. The application gives the event by a request, and another one
 * by the same request later.
 *
 * The bug: the reference to the former event is given back without the lock under which the DPC takes it, so that the DPC may set an event that is gone.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: use-after-free, data-race
 * Needs: ioctl, schedule, device
 */
#include "../include/bay_plx.h"

NTKERNELAPI ULONG NTAPI IoGetRequestorProcessId(PIRP irp);
NTKERNELAPI HANDLE NTAPI PsGetCurrentProcessId(VOID);

#define IOCTL_EVENT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: HANDLE */

typedef struct CARD {
    AF_PLX plx;
    KDPC dpc;
    KSPIN_LOCK lock;                            /* of what follows */
    PKEVENT event;
} CARD;

static const GUID Guid = { 0xaf010022, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x22 } };

static BOOLEAN NTAPI Isr(PKINTERRUPT interrupt, PVOID context)
{
    CARD *card = context;
    ULONG lines = AfPlxLines(&card->plx);

    UNREFERENCED_PARAMETER(interrupt);
    if (!lines)
        return FALSE;
    card->plx.intcsr &= ~lines;                 /* until another event is given */
    AfWrite32(card->plx.regs, PLX_INTCSR, card->plx.intcsr);
    KeInsertQueueDpc(&card->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    PKEVENT event;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    event = card->event;
#ifdef FIXED
    if (event)
        ObReferenceObject(event);
#endif
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (!event)
        return;
    KeSetEvent(event, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    ObDereferenceObjectDeferDelete(event);
#endif
}

/* Takes over the reference; NULL: none from now on. */
static void Exchange(CARD *card, PKEVENT event)
{
    PKEVENT former;
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    former = card->event;
    card->event = event;
    KeReleaseSpinLock(&card->lock, irql);
    if (former)
        ObDereferenceObject(former);
}

static NTSTATUS Give(CARD *card, IRP *irp)
{
    AF_PLX_CHANGE change = { &card->plx, 0, INT1_ENABLE };
    PKEVENT event;
    NTSTATUS status;

    if (IoGetRequestorProcessId(irp) != (ULONG)(ULONG_PTR)PsGetCurrentProcessId())
        return STATUS_INVALID_DEVICE_STATE;     /* it has waited in front of the gate: its handle means nothing here */
    status = ObReferenceObjectByHandle(*(HANDLE *)irp->AssociatedIrp.SystemBuffer, EVENT_MODIFY_STATE, *ExEventObjectType,
                                       irp->RequestorMode, (PVOID *)&event, NULL);
    if (!NT_SUCCESS(status))
        return status;
    Exchange(card, event);
    KeSynchronizeExecution(card->plx.interrupt, AfPlxChange, &change);
    return STATUS_SUCCESS;
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeDpc(&card->dpc, Dpc, card);
    KeInitializeSpinLock(&card->lock);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = AfPlxMap(&card->plx, list);

    if (!NT_SUCCESS(status))
        return status;
    status = AfPlxConnect(&card->plx, Isr);
    if (!NT_SUCCESS(status))
        AfPlxUnmap(&card->plx);
    return status;
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    AfPlxDisconnect(&card->plx);
    Exchange(card, NULL);
    AfPlxUnmap(&card->plx);
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;

    if (stack->MajorFunction == IRP_MJ_DEVICE_CONTROL && stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_EVENT) {
        status = STATUS_INVALID_PARAMETER;
        if (stack->Parameters.DeviceIoControl.InputBufferLength == sizeof(HANDLE))
            status = Give((CARD *)af, irp);
    }
    AfFinish(af, irp, status, 0);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .flags = DO_BUFFERED_IO, .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .suspend = AfPlxSuspend, .resume = AfPlxResume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
