/*
 * canyon: an echo with a delay. A request brings up to 512 bytes and a time; the bytes come back when the time is over. At most 32 requests may be in
 * the canyon at once.
 *
 * The bug: a request that is cancelled in the canyon does not give its place back. After 32 cancelled requests the device refuses everything until it
 * is removed.
 *
 * Device: ROOT\CANYON
 * Rule: request-refused
 * Needs: cancel
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define PLACES 32
#define LONGEST_TEXT 512u
#define LONGEST_DELAY 10000u /* milliseconds */
#define TICK 10              /* milliseconds */

#define IOCTL_CANYON_ECHO CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS) /* in: ms (ULONG), text; out: the same */
#define IOCTL_CANYON_FREE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)                     /* out: free places (LONG) */

DRIVER_INITIALIZE DriverEntry;

/* {0E6E3C0F-5C9C-49F4-8E2C-6D7F0A1B2C02} */
static const GUID CanyonGuid = {0x0e6e3c0f, 0x5c9c, 0x49f4, {0x8e, 0x2c, 0x6d, 0x7f, 0x0a, 0x1b, 0x2c, 0x02}};

typedef struct _CANYON {
    XF X;
    volatile LONG Free; /* places */
    KTIMER Timer;
    KDPC TimerDpc;
    IO_CSQ Echoes;
    KSPIN_LOCK Lock; /* guards the rest */
    LIST_ENTRY List;
    BOOLEAN Closed;
} CANYON, *PCANYON;

/* when the echo of a request is due (interrupt time) */
#define DUE(Irp) ((Irp)->Tail.Overlay.DriverContext[0])

/* which requests to take off */
typedef struct _CHOICE {
    PFILE_OBJECT File; /* NULL: of any file */
    ULONG64 Now;       /* those due by then */
} CHOICE;

static NTSTATUS NTAPI EchoInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PCANYON c = CONTAINING_RECORD(Csq, CANYON, Echoes);

    UNREFERENCED_PARAMETER(Context);
    if (c->Closed)
        return STATUS_NO_SUCH_DEVICE;
    InsertTailList(&c->List, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI EchoRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI EchoPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PCANYON c = CONTAINING_RECORD(Csq, CANYON, Echoes);
    const CHOICE *Choice = Context;
    PLIST_ENTRY e = Irp == NULL ? c->List.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    for (; e != &c->List; e = e->Flink) {
        Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if ((ULONG64)DUE(Irp) <= Choice->Now && (Choice->File == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == Choice->File))
            return Irp;
    }
    return NULL;
}

static VOID NTAPI EchoLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, CANYON, Echoes)->Lock, Irql);
}

static VOID NTAPI EchoUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, CANYON, Echoes)->Lock, Irql);
}

/* The request leaves the canyon. */
static VOID Leave(PCANYON c, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    InterlockedIncrement(&c->Free);
    XfComplete(Irp, Status, Information);
    XfLeave(&c->X);
}

static VOID NTAPI EchoCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PCANYON c = CONTAINING_RECORD(Csq, CANYON, Echoes);

#ifdef FIXED
    Leave(c, Irp, STATUS_CANCELLED, 0);
#else
    XfComplete(Irp, STATUS_CANCELLED, 0);
    XfLeave(&c->X);
#endif
}

static VOID EndEchoes(PCANYON c, PFILE_OBJECT File, NTSTATUS Status)
{
    CHOICE Choice = {File, ~0ull};
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&c->Echoes, &Choice)) != NULL)
        Leave(c, Irp, Status, 0);
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PCANYON c = Context;
    CHOICE Choice = {NULL, KeQueryInterruptTime()};
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    while ((Irp = IoCsqRemoveNextIrp(&c->Echoes, &Choice)) != NULL) {
        /* input and output share the buffer: the bytes are there already */
        Leave(c, Irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength);
    }
}

static NTSTATUS Enter(PCANYON c, PIRP Irp, ULONG Milliseconds)
{
    NTSTATUS Status;

    if (InterlockedDecrement(&c->Free) < 0) {
        InterlockedIncrement(&c->Free);
        return STATUS_DEVICE_BUSY;
    }
    Status = XfEnter(&c->X);
    if (!NT_SUCCESS(Status)) {
        InterlockedIncrement(&c->Free);
        return Status;
    }
    DUE(Irp) = (PVOID)(KeQueryInterruptTime() + 10000ull * Milliseconds);
    IoMarkIrpPending(Irp);
    Status = IoCsqInsertIrpEx(&c->Echoes, Irp, NULL, NULL);
    if (!NT_SUCCESS(Status))
        Leave(c, Irp, Status, 0);
    return XF_TAKEN;
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PCANYON c = CONTAINING_RECORD(x, CANYON, X);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = s->Parameters.DeviceIoControl.InputBufferLength, Out = s->Parameters.DeviceIoControl.OutputBufferLength, Milliseconds;
    LONG Free;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CANYON_ECHO:
        if (In < sizeof(ULONG) || Out < In)
            return STATUS_BUFFER_TOO_SMALL;
        if (In - sizeof(ULONG) > LONGEST_TEXT)
            return STATUS_INVALID_BUFFER_SIZE;
        RtlCopyMemory(&Milliseconds, Irp->AssociatedIrp.SystemBuffer, sizeof(ULONG));
        if (Milliseconds > LONGEST_DELAY)
            return STATUS_INVALID_PARAMETER;
        return Enter(c, Irp, Milliseconds);
    case IOCTL_CANYON_FREE:
        if (Out < sizeof(LONG))
            return STATUS_BUFFER_TOO_SMALL;
        Free = c->Free;
        if (Free < 0) /* one is being refused right now */
            Free = 0;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Free, sizeof(LONG));
        Irp->IoStatus.Information = sizeof(LONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

/* Nothing goes through the frame's queue. */
static VOID DevIo(PXF x, PIRP Irp)
{
    XfFinish(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS DevInit(PXF x)
{
    PCANYON c = CONTAINING_RECORD(x, CANYON, X);

    c->Free = PLACES;
    KeInitializeSpinLock(&c->Lock);
    InitializeListHead(&c->List);
    KeInitializeTimer(&c->Timer);
    KeInitializeDpc(&c->TimerDpc, Tick, c);
    return IoCsqInitializeEx(&c->Echoes, EchoInsert, EchoRemove, EchoPeek, EchoLock, EchoUnlock, EchoCancelled);
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

/* While the device is stopped echoes wait. */
static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PCANYON c = CONTAINING_RECORD(x, CANYON, X);
    LARGE_INTEGER First;

    UNREFERENCED_PARAMETER(List);
    First.QuadPart = -10000LL * TICK;
    KeSetTimerEx(&c->Timer, First, TICK, &c->TimerDpc);
    return STATUS_SUCCESS;
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PCANYON c = CONTAINING_RECORD(x, CANYON, X);

    UNREFERENCED_PARAMETER(Alive);
    KeCancelTimer(&c->Timer);
    KeFlushQueuedDpcs();
}

static VOID DevUp(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevDown(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevGone(PXF x)
{
    PCANYON c = CONTAINING_RECORD(x, CANYON, X);
    KIRQL Irql;

    KeAcquireSpinLock(&c->Lock, &Irql);
    c->Closed = TRUE;
    KeReleaseSpinLock(&c->Lock, Irql);
    EndEchoes(c, NULL, STATUS_NO_SUCH_DEVICE);
}

static NTSTATUS NTAPI CanyonCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCANYON c = Device->DeviceExtension;

    KeEnterCriticalRegion();
    if (NT_SUCCESS(XfEnter(&c->X))) {
        EndEchoes(c, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
        XfLeave(&c->X);
    }
    KeLeaveCriticalRegion();
    return XfDispatchCleanup(Device, Irp);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(CANYON), &CanyonGuid, DO_BUFFERED_IO);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = CanyonCleanup;
    return STATUS_SUCCESS;
}
