/*
 * gongs: strikes the events that programs hand over, each with its own period, from one timer. A file has up to
 * eight of them; they go when the file's last handle is closed.
 *
 * The bug: the handle is turned into an event (ObReferenceObjectByHandle) while the spin lock over the slots is held,
 * thus at DISPATCH_LEVEL.
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_GONGS_ADD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GONGS_REMOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* mingw declares the exported variable as imported and as a pointer to what it is: its value is the type already. */
#define EVENT_TYPE ((POBJECT_TYPE)ExEventObjectType)
#define TAG 'gnoG'
#define SLOTS 8
#define TICK_MS 10

typedef struct _GONG_ADD {
    ULONGLONG Event;
    ULONG PeriodMs;
    ULONG Slot;
} GONG_ADD, *PGONG_ADD;

typedef struct _GONG {
    PKEVENT Event;
    ULONG Period, Left;
} GONG;

typedef struct _PLAYER {
    LIST_ENTRY Link;
    GONG Gongs[SLOTS];
} PLAYER, *PPLAYER;

static PDEVICE_OBJECT Device;
static KSPIN_LOCK Lock;
static LIST_ENTRY Players;
static KTIMER Timer;
static KDPC Dpc;

static VOID NTAPI Strike(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PLIST_ENTRY e;
    ULONG i;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&Lock);
    for (e = Players.Flink; e != &Players; e = e->Flink) {
        PPLAYER p = CONTAINING_RECORD(e, PLAYER, Link);

        for (i = 0; i < SLOTS; i++)
            if (p->Gongs[i].Event != NULL && --p->Gongs[i].Left == 0) {
                p->Gongs[i].Left = p->Gongs[i].Period;
                KeSetEvent(p->Gongs[i].Event, EVENT_INCREMENT, FALSE);
            }
    }
    KeReleaseSpinLockFromDpcLevel(&Lock);
}

static NTSTATUS Add(PPLAYER p, PGONG_ADD in, KPROCESSOR_MODE mode)
{
    PKEVENT event = NULL;
    ULONG period, i;
    KIRQL irql;
    NTSTATUS status;

    if (in->PeriodMs < TICK_MS || in->PeriodMs > 3600000)
        return STATUS_INVALID_PARAMETER;
    period = in->PeriodMs / TICK_MS;

#ifdef FIXED
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)in->Event, EVENT_MODIFY_STATE, EVENT_TYPE, mode, (PVOID *)&event, NULL);
    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&Lock, &irql);
#else
    KeAcquireSpinLock(&Lock, &irql);
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)in->Event, EVENT_MODIFY_STATE, EVENT_TYPE, mode, (PVOID *)&event, NULL);
    if (!NT_SUCCESS(status)) {
        KeReleaseSpinLock(&Lock, irql);
        return status;
    }
#endif
    status = STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < SLOTS; i++)
        if (p->Gongs[i].Event == NULL) {
            p->Gongs[i].Period = p->Gongs[i].Left = period;
            p->Gongs[i].Event = event;
            in->Slot = i;
            status = STATUS_SUCCESS;
            break;
        }
    KeReleaseSpinLock(&Lock, irql);
    if (!NT_SUCCESS(status))
        ObDereferenceObject(event);
    return status;
}

static NTSTATUS Remove(PPLAYER p, ULONG slot)
{
    PKEVENT event;
    KIRQL irql;

    if (slot >= SLOTS)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Lock, &irql);
    event = p->Gongs[slot].Event;
    p->Gongs[slot].Event = NULL;
    KeReleaseSpinLock(&Lock, irql);
    if (event == NULL)
        return STATUS_NOT_FOUND;
    ObDereferenceObject(event);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI GongsDispatch(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    PPLAYER p = stack->FileObject->FsContext;
    ULONG in, out, i;
    ULONG_PTR info = 0;
    KIRQL irql;
    NTSTATUS status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(dev);
    switch (stack->MajorFunction) {
    case IRP_MJ_CREATE:
        p = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *p, TAG);
        if (p == NULL) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        RtlZeroMemory(p, sizeof *p);
        KeAcquireSpinLock(&Lock, &irql);
        InsertTailList(&Players, &p->Link);
        KeReleaseSpinLock(&Lock, irql);
        stack->FileObject->FsContext = p;
        break;
    case IRP_MJ_CLEANUP:
        for (i = 0; i < SLOTS; i++)
            Remove(p, i);
        break;
    case IRP_MJ_CLOSE:
        KeAcquireSpinLock(&Lock, &irql);
        RemoveEntryList(&p->Link);
        KeReleaseSpinLock(&Lock, irql);
        for (i = 0; i < SLOTS; i++)         /* one that was added while the cleanup ran */
            if (p->Gongs[i].Event != NULL)
                ObDereferenceObject(p->Gongs[i].Event);
        ExFreePoolWithTag(p, TAG);
        break;
    case IRP_MJ_DEVICE_CONTROL:
        in = stack->Parameters.DeviceIoControl.InputBufferLength;
        out = stack->Parameters.DeviceIoControl.OutputBufferLength;
        switch (stack->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_GONGS_ADD:
            if (in < sizeof(GONG_ADD) || out < sizeof(GONG_ADD)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            status = Add(p, irp->AssociatedIrp.SystemBuffer, irp->RequestorMode);
            if (NT_SUCCESS(status))
                info = sizeof(GONG_ADD);
            break;
        case IOCTL_GONGS_REMOVE:
            status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : Remove(p, *(PULONG)irp->AssociatedIrp.SystemBuffer);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
        }
        break;
    }
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI GongsUnload(PDRIVER_OBJECT driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Gongs");

    UNREFERENCED_PARAMETER(driver);
    KeCancelTimer(&Timer);
    KeFlushQueuedDpcs();
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Gongs"), link = RTL_CONSTANT_STRING(L"\\DosDevices\\Gongs");
    LARGE_INTEGER due;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    KeInitializeSpinLock(&Lock);
    InitializeListHead(&Players);
    KeInitializeTimer(&Timer);
    KeInitializeDpc(&Dpc, Strike, NULL);
    driver->MajorFunction[IRP_MJ_CREATE] = GongsDispatch;
    driver->MajorFunction[IRP_MJ_CLEANUP] = GongsDispatch;
    driver->MajorFunction[IRP_MJ_CLOSE] = GongsDispatch;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GongsDispatch;
    driver->DriverUnload = GongsUnload;
    status = IoCreateDevice(driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(Device);
        return status;
    }
    due.QuadPart = -10000LL * TICK_MS;
    KeSetTimerEx(&Timer, due, TICK_MS, &Dpc);
    return STATUS_SUCCESS;
}
