/*
 * snapview: lets a program look on. The program lends a piece of its memory with a request that stays pending; ten times a second the driver writes the
 * current figures of the system clock there, for as many rounds as were asked for.
 *
 * The bug: the lent memory is probed and locked as KernelMode, although the address comes from a program by METHOD_NEITHER. An address of the kernel passes,
 * and the driver then writes its figures over kernel memory.
 *
 * Device: none
 * Compiler: clang
 * Rule: user-memory-not-probed
 * Needs: ioctl
 */
#include "../include/try.h"
#define YK_LEGACY
#include "../include/queue_kit.h"

#define SNAP_TAG 'panS'
#define SNAP_MOST 64      /* views at a time */
#define SNAP_ROUNDS 36000 /* an hour */
#define SNAP_PERIOD 100   /* ms */

#define IOCTL_SNAPVIEW_VIEW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_SNAPVIEW_VIEWS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

/* What is written into the program's memory. */
typedef struct _SNAP_FIGURES {
    ULONGLONG Sequence;
    ULONGLONG InterruptTime;
    ULONGLONG SystemTime;
    ULONG RoundsLeft;
    ULONG Views;
} SNAP_FIGURES, *PSNAP_FIGURES;

typedef struct _SNAP_EXT {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    volatile LONG Views;
    ULONGLONG Sequence;
    KTIMER Timer;
    KDPC Dpc;
} SNAP_EXT, *PSNAP_EXT;

/* In the pending request: */
#define SNAP_MDL(i) ((i)->Tail.Overlay.DriverContext[0])
#define SNAP_VIEW(i) ((i)->Tail.Overlay.DriverContext[1])
#define SNAP_LEFT(i) ((i)->Tail.Overlay.DriverContext[2])

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING SnapLink = {sizeof(L"\\DosDevices\\Snapview") - sizeof(WCHAR), sizeof(L"\\DosDevices\\Snapview"), (PWSTR)L"\\DosDevices\\Snapview"};
static UNICODE_STRING SnapName = {sizeof(L"\\Device\\Snapview") - sizeof(WCHAR), sizeof(L"\\Device\\Snapview"), (PWSTR)L"\\Device\\Snapview"};

/* Gives the memory back and ends the request; it is in no list any more. */
static VOID SnapEnd(PSNAP_EXT x, PIRP Irp, NTSTATUS Status)
{
    PMDL Mdl = SNAP_MDL(Irp);

    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    InterlockedDecrement(&x->Views);
    YkReply(Irp, Status, 0);
}

static VOID NTAPI SnapInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, SNAP_EXT, Csq)->List, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI SnapRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* Context: a file object, or the queue itself for requests that are through. */
static PIRP NTAPI SnapPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PSNAP_EXT x = CONTAINING_RECORD(Csq, SNAP_EXT, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : x->List.Flink;

    for (; e != &x->List; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (Context == (PVOID)Csq ? SNAP_LEFT(i) == NULL : (PVOID)IoGetCurrentIrpStackLocation(i)->FileObject == Context)
            return i;
    }
    return NULL;
}

static VOID NTAPI SnapAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, SNAP_EXT, Csq)->Lock, Irql);
}

static VOID NTAPI SnapRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, SNAP_EXT, Csq)->Lock, Irql);
}

static VOID NTAPI SnapCancelled(PIO_CSQ Csq, PIRP Irp)
{
    SnapEnd(CONTAINING_RECORD(Csq, SNAP_EXT, Csq), Irp, STATUS_CANCELLED);
}

/* A round: every view gets the figures. A request in the list owns its memory, so the list's lock keeps the memory there. */
static VOID NTAPI SnapRound(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PSNAP_EXT x = Context;
    SNAP_FIGURES f;
    LARGE_INTEGER Time;
    PLIST_ENTRY e;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeQuerySystemTime(&Time);
    f.InterruptTime = KeQueryInterruptTime();
    f.SystemTime = (ULONGLONG)Time.QuadPart;
    f.Views = (ULONG)x->Views;

    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    f.Sequence = ++x->Sequence;
    for (e = x->List.Flink; e != &x->List; e = e->Flink) {
        Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (SNAP_LEFT(Irp) == NULL)
            continue;
        SNAP_LEFT(Irp) = (PVOID)((ULONG_PTR)SNAP_LEFT(Irp) - 1);
        f.RoundsLeft = (ULONG)(ULONG_PTR)SNAP_LEFT(Irp);
        RtlCopyMemory(SNAP_VIEW(Irp), &f, sizeof(f));
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, &x->Csq)) != NULL)
        SnapEnd(x, Irp, STATUS_SUCCESS);
}

static NTSTATUS SnapView(PSNAP_EXT x, PIRP Irp, PIO_STACK_LOCATION s)
{
    PMDL Mdl;
    PVOID View;
    ULONG Rounds = 0;
    NTSTATUS Status = STATUS_SUCCESS;

    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SNAP_FIGURES))
        return YkReply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    __try {
        if (Irp->RequestorMode != KernelMode)
            ProbeForRead(s->Parameters.DeviceIoControl.Type3InputBuffer, sizeof(ULONG), sizeof(ULONG));
        Rounds = *(volatile ULONG *)s->Parameters.DeviceIoControl.Type3InputBuffer;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
    if (!NT_SUCCESS(Status))
        return YkReply(Irp, Status, 0);
    if (Rounds == 0 || Rounds > SNAP_ROUNDS)
        return YkReply(Irp, STATUS_INVALID_PARAMETER, 0);

    if (InterlockedIncrement(&x->Views) > SNAP_MOST) {
        InterlockedDecrement(&x->Views);
        return YkReply(Irp, STATUS_QUOTA_EXCEEDED, 0);
    }
    Mdl = IoAllocateMdl(Irp->UserBuffer, sizeof(SNAP_FIGURES), FALSE, FALSE, NULL);
    if (Mdl == NULL) {
        InterlockedDecrement(&x->Views);
        return YkReply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    __try {
#ifdef FIXED
        MmProbeAndLockPages(Mdl, Irp->RequestorMode, IoWriteAccess);
#else
        MmProbeAndLockPages(Mdl, KernelMode, IoWriteAccess);
#endif
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
    if (!NT_SUCCESS(Status)) {
        IoFreeMdl(Mdl);
        InterlockedDecrement(&x->Views);
        return YkReply(Irp, Status, 0);
    }
    View = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    if (View == NULL) {
        MmUnlockPages(Mdl);
        IoFreeMdl(Mdl);
        InterlockedDecrement(&x->Views);
        return YkReply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    SNAP_MDL(Irp) = Mdl;
    SNAP_VIEW(Irp) = View;
    SNAP_LEFT(Irp) = (PVOID)(ULONG_PTR)Rounds;
    IoCsqInsertIrp(&x->Csq, Irp, NULL);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI SnapOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SnapCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSNAP_EXT x = DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP View;

    while ((View = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        SnapEnd(x, View, STATUS_CANCELLED);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SnapControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSNAP_EXT x = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SNAPVIEW_VIEW:
        return SnapView(x, Irp, s);
    case IOCTL_SNAPVIEW_VIEWS:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
            return YkReply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = x->Views;
        return YkReply(Irp, STATUS_SUCCESS, sizeof(LONG));
    }
    return YkReply(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* No handle is open, so no view is left. */
static VOID NTAPI SnapUnload(PDRIVER_OBJECT DriverObject)
{
    PSNAP_EXT x = DriverObject->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&SnapLink);
    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT DeviceObject;
    LARGE_INTEGER Due;
    NTSTATUS Status;
    PSNAP_EXT x;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(DriverObject, sizeof(SNAP_EXT), &SnapName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &DeviceObject);
    if (!NT_SUCCESS(Status))
        return Status;
    x = DeviceObject->DeviceExtension;
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->List);
    KeInitializeTimerEx(&x->Timer, NotificationTimer);
    KeInitializeDpc(&x->Dpc, SnapRound, x);
    Status = IoCsqInitialize(&x->Csq, SnapInsert, SnapRemove, SnapPeek, SnapAcquire, SnapRelease, SnapCancelled);
    if (NT_SUCCESS(Status))
        Status = IoCreateSymbolicLink(&SnapLink, &SnapName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SnapOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = SnapCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SnapOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SnapControl;
    DriverObject->DriverUnload = SnapUnload;
    Due.QuadPart = -(LONGLONG)SNAP_PERIOD * 10000;
    KeSetTimerEx(&x->Timer, Due, SNAP_PERIOD, &x->Dpc);
    DeviceObject->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
