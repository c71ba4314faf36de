/* keel_base.h: what every driver here starts from: memory, completing, lists of cancelable requests, control devices. */
#ifndef AJ_BASE_H
#define AJ_BASE_H
#include <ddk/wdm.h>

#define AJ_TAG 'bljA'

DRIVER_INITIALIZE DriverEntry;

/* zeroed memory that may be touched at any level; NULL when there is none */
static inline PVOID aj_alloc(SIZE_T n)
{
    PVOID p = ExAllocatePoolWithTag(NonPagedPoolNx, n, AJ_TAG);

    if (p)
        RtlZeroMemory(p, n);
    return p;
}

static inline void aj_free(PVOID p)
{
    ExFreePoolWithTag(p, AJ_TAG);
}

static inline NTSTATUS aj_done(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

static inline PFILE_OBJECT aj_file(PIRP irp)
{
    return IoGetCurrentIrpStackLocation(irp)->FileObject;
}

/* what a driver keeps in a request it holds: four words (those in a queue of keel_queue.h: the first three) */
static inline ULONG_PTR aj_word(PIRP irp, ULONG i)
{
    return (ULONG_PTR)irp->Tail.Overlay.DriverContext[i];
}

static inline void aj_set_word(PIRP irp, ULONG i, ULONG_PTR v)
{
    irp->Tail.Overlay.DriverContext[i] = (PVOID)v;
}

/*
 * Lists of cancelable requests. The caller holds the spin lock which guards the list (the cancel routine takes the
 * same one). aj_pend_locked marks the request pending; FALSE: it was cancelled already, is not in the list, and the
 * caller completes it (after giving the lock back) and returns STATUS_PENDING.
 */
static inline BOOLEAN aj_pend_locked(PLIST_ENTRY list, PIRP irp, PDRIVER_CANCEL rtn)
{
    IoMarkIrpPending(irp);
    InsertTailList(list, &irp->Tail.Overlay.ListEntry);
    (void)IoSetCancelRoutine(irp, rtn);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        return FALSE;
    }
    return TRUE;
}

/*
 * The first request of the list (of that file object, unless NULL) which is not being cancelled, taken out and no
 * longer cancelable. One that is being cancelled is taken out too, linked to itself: its cancel routine completes it.
 */
static inline PIRP aj_unpend_locked(PLIST_ENTRY list, PFILE_OBJECT fo)
{
    PLIST_ENTRY e = list->Flink;

    while (e != list) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        PLIST_ENTRY next = e->Flink;

        if (!fo || aj_file(irp) == fo) {
            RemoveEntryList(e);
            InitializeListHead(e);
            if (IoSetCancelRoutine(irp, NULL))
                return irp;
        }
        e = next;
    }
    return NULL;
}

/* All of them, into a list of the caller's, to complete when the lock is free again. */
static inline void aj_unpend_all_locked(PLIST_ENTRY list, PFILE_OBJECT fo, PLIST_ENTRY out)
{
    PIRP irp;

    while ((irp = aj_unpend_locked(list, fo)) != NULL)
        InsertTailList(out, &irp->Tail.Overlay.ListEntry);
}

static inline PIRP aj_pop_irp(PLIST_ENTRY l)
{
    if (IsListEmpty(l))
        return NULL;
    return CONTAINING_RECORD(RemoveHeadList(l), IRP, Tail.Overlay.ListEntry);
}

/* A control device with its symbolic link, for drivers without a device of their own. */
static inline NTSTATUS aj_control(PDRIVER_OBJECT drv, PCWSTR name, PCWSTR link, ULONG ext, PDEVICE_OBJECT *out)
{
    UNICODE_STRING n, l;
    PDEVICE_OBJECT dev;
    NTSTATUS st;

    RtlInitUnicodeString(&n, name);
    RtlInitUnicodeString(&l, link);
    st = IoCreateDevice(drv, ext, &n, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    RtlZeroMemory(dev->DeviceExtension, ext);
    st = IoCreateSymbolicLink(&l, &n);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    dev->Flags |= DO_BUFFERED_IO;
    *out = dev;
    return STATUS_SUCCESS;
}

static inline void aj_uncontrol(PDEVICE_OBJECT dev, PCWSTR link)
{
    UNICODE_STRING l;

    RtlInitUnicodeString(&l, link);
    IoDeleteSymbolicLink(&l);
    IoDeleteDevice(dev);
}

#define AJ_IOCTL(n, method) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), method, FILE_ANY_ACCESS)

#endif
