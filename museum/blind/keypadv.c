/*
 * keypadv: a virtual keypad for kiosk tests: a test program presses keys by a control request, the
 * application under test reads them one at a time; reads wait until there is a key.
 *
 * The bug: a read that is cancelled is completed without giving back its remove lock, so that the device's removal
 * waits for ever.
 *
 * Device: ROOT\KEYPADV
 * Rule: deadlock
 * Needs: cancel, removal
 */
#include <ddk/wdm.h>
#include <initguid.h>

DEFINE_GUID(GUID_KEYPADV, 0x8d0c2e04, 0x15b2, 0x4a7f, 0xa1, 0x44, 0x60, 0x0d, 0x93, 0x2b, 0x17, 0x04);

#define IOCTL_KEY_PRESS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define KEYS 16u

typedef enum { Added, Working, RemoveAsked, Gone } PHASE;

typedef struct {
    PDEVICE_OBJECT Self, Below;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Name;
    PHASE Phase, Before;
    IO_CSQ Reads;
    KSPIN_LOCK ReadLock;
    LIST_ENTRY ReadList;
    KSPIN_LOCK KeyLock;        /* taken before ReadLock */
    ULONG First, Count;
    USHORT Key[KEYS];
} PAD, *PPAD;

static NTSTATUS End(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI PadInsert(PIO_CSQ Q, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Q, PAD, Reads)->ReadList, &Irp->Tail.Overlay.ListEntry);
}
static VOID NTAPI PadTake(PIO_CSQ Q, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Q);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}
static PIRP NTAPI PadNext(PIO_CSQ Q, PIRP Irp, PVOID File)
{
    PPAD P = CONTAINING_RECORD(Q, PAD, Reads);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : P->ReadList.Flink;
    while (e != &P->ReadList) {
        PIRP c = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(c)->FileObject == (PFILE_OBJECT)File)
            return c;
        e = e->Flink;
    }
    return NULL;
}
static VOID NTAPI PadLock(PIO_CSQ Q, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Q, PAD, Reads)->ReadLock, Irql);
}
static VOID NTAPI PadUnlock(PIO_CSQ Q, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Q, PAD, Reads)->ReadLock, Irql);
}
static VOID NTAPI PadCanceled(PIO_CSQ Q, PIRP Irp)
{
    PPAD P = CONTAINING_RECORD(Q, PAD, Reads);
    End(Irp, STATUS_CANCELLED, 0);
#ifdef FIXED
    IoReleaseRemoveLock(&P->Lock, Irp);
#else
    UNREFERENCED_PARAMETER(P);
#endif
}

static VOID PadFlush(PPAD P, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&P->Reads, File))) {
        End(irp, Status, 0);
        IoReleaseRemoveLock(&P->Lock, irp);
    }
}

/* Gives the gathered keys to the waiting reads. */
static VOID PadServe(PPAD P)
{
    for (;;) {
        PIRP irp = NULL;
        KIRQL irql;
        KeAcquireSpinLock(&P->KeyLock, &irql);
        if (P->Count)
            irp = IoCsqRemoveNextIrp(&P->Reads, NULL);
        if (irp) {
            *(PUSHORT)irp->AssociatedIrp.SystemBuffer = P->Key[P->First];
            P->First = (P->First + 1) % KEYS;
            P->Count--;
        }
        KeReleaseSpinLock(&P->KeyLock, irql);
        if (!irp)
            return;
        End(irp, STATUS_SUCCESS, sizeof(USHORT));
        IoReleaseRemoveLock(&P->Lock, irp);
    }
}

static NTSTATUS NTAPI PadRead(PDEVICE_OBJECT D, PIRP Irp)
{
    PPAD P = D->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    NTSTATUS st;
    if (length < sizeof(USHORT))
        return End(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    st = IoAcquireRemoveLock(&P->Lock, Irp);
    if (!NT_SUCCESS(st))
        return End(Irp, st, 0);
    st = IoAcquireRemoveLock(&P->Lock, P);
    if (!NT_SUCCESS(st)) {
        End(Irp, st, 0);
        IoReleaseRemoveLock(&P->Lock, Irp);
        return st;
    }
    IoMarkIrpPending(Irp);
    IoCsqInsertIrp(&P->Reads, Irp, NULL);
    PadServe(P);
    if (P->Phase == Gone)
        PadFlush(P, NULL, STATUS_DEVICE_NOT_CONNECTED);
    IoReleaseRemoveLock(&P->Lock, P);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI PadControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PPAD P = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    USHORT key;
    KIRQL irql;
    NTSTATUS st = IoAcquireRemoveLock(&P->Lock, Irp);
    if (!NT_SUCCESS(st))
        return End(Irp, st, 0);
    if (P->Phase == Gone)
        st = STATUS_DEVICE_NOT_CONNECTED;
    else if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_KEY_PRESS)
        st = STATUS_INVALID_DEVICE_REQUEST;
    else if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(USHORT))
        st = STATUS_INFO_LENGTH_MISMATCH;
    else {
        key = *(PUSHORT)Irp->AssociatedIrp.SystemBuffer;
        KeAcquireSpinLock(&P->KeyLock, &irql);
        if (P->Count < KEYS)
            P->Key[(P->First + P->Count++) % KEYS] = key;
        else
            st = STATUS_DEVICE_BUSY;
        KeReleaseSpinLock(&P->KeyLock, irql);
        PadServe(P);
    }
    End(Irp, st, 0);
    IoReleaseRemoveLock(&P->Lock, Irp);
    return st;
}

static NTSTATUS NTAPI PadFile(PDEVICE_OBJECT D, PIRP Irp)
{
    PPAD P = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    if (sp->MajorFunction == IRP_MJ_CREATE && P->Phase != Working)
        return End(Irp, STATUS_DELETE_PENDING, 0);
    if (sp->MajorFunction == IRP_MJ_CLEANUP)
        PadFlush(P, sp->FileObject, STATUS_CANCELLED);
    return End(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PadPower(PDEVICE_OBJECT D, PIRP Irp)
{
    PPAD P = D->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&P->Lock, Irp);
    if (!NT_SUCCESS(st))
        return End(Irp, st, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    st = PoCallDriver(P->Below, Irp);
    IoReleaseRemoveLock(&P->Lock, Irp);
    return st;
}
static NTSTATUS NTAPI PadSystem(PDEVICE_OBJECT D, PIRP Irp)
{
    PPAD P = D->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&P->Lock, Irp);
    if (!NT_SUCCESS(st))
        return End(Irp, st, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(P->Below, Irp);
    IoReleaseRemoveLock(&P->Lock, Irp);
    return st;
}

static VOID PadVanish(PPAD P)
{
    if (P->Phase == Gone)
        return;
    if (P->Phase != Added)
        IoSetDeviceInterfaceState(&P->Name, FALSE);
    P->Phase = Gone;
    PadFlush(P, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS NTAPI PadStarted(PDEVICE_OBJECT D, PIRP Irp, PVOID Ctx)
{
    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Ctx, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI PadPnp(PDEVICE_OBJECT D, PIRP Irp)
{
    PPAD P = D->DeviceExtension;
    KEVENT ev;
    NTSTATUS st = IoAcquireRemoveLock(&P->Lock, Irp);
    if (!NT_SUCCESS(st))
        return End(Irp, st, 0);

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        KeInitializeEvent(&ev, NotificationEvent, FALSE);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, PadStarted, &ev, TRUE, TRUE, TRUE);
        IoCallDriver(P->Below, Irp);
        KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
        st = Irp->IoStatus.Status;
        if (NT_SUCCESS(st) && P->Phase == Added) {
            P->Phase = Working;
            IoSetDeviceInterfaceState(&P->Name, TRUE);
        }
        End(Irp, st, 0);
        IoReleaseRemoveLock(&P->Lock, Irp);
        return st;
    case IRP_MN_QUERY_REMOVE_DEVICE:
        P->Before = P->Phase;
        P->Phase = RemoveAsked;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        if (P->Phase == RemoveAsked)
            P->Phase = P->Before;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        PadVanish(P);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        PadVanish(P);
        IoReleaseRemoveLockAndWait(&P->Lock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        st = IoCallDriver(P->Below, Irp);
        IoDetachDevice(P->Below);
        RtlFreeUnicodeString(&P->Name);
        IoDeleteDevice(D);
        return st;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(P->Below, Irp);
    IoReleaseRemoveLock(&P->Lock, Irp);
    return st;
}

static NTSTATUS NTAPI PadAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT d;
    PPAD P;
    NTSTATUS st = IoCreateDevice(Drv, sizeof(PAD), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        return st;
    P = d->DeviceExtension;
    RtlZeroMemory(P, sizeof(PAD));
    P->Self = d;
    P->Phase = Added;
    IoInitializeRemoveLock(&P->Lock, 'vdaP', 0, 0);
    KeInitializeSpinLock(&P->ReadLock);
    KeInitializeSpinLock(&P->KeyLock);
    InitializeListHead(&P->ReadList);
    st = IoCsqInitialize(&P->Reads, PadInsert, PadTake, PadNext, PadLock, PadUnlock, PadCanceled);
    if (NT_SUCCESS(st))
        st = IoRegisterDeviceInterface(Pdo, &GUID_KEYPADV, NULL, &P->Name);
    if (NT_SUCCESS(st)) {
        P->Below = IoAttachDeviceToDeviceStack(d, Pdo);
        if (!P->Below) {
            RtlFreeUnicodeString(&P->Name);
            st = STATUS_NO_SUCH_DEVICE;
        }
    }
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(d);
        return st;
    }
    d->Flags |= DO_BUFFERED_IO | (P->Below->Flags & DO_POWER_PAGABLE);
    d->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
static VOID NTAPI PadUnload(PDRIVER_OBJECT Drv)
{
    UNREFERENCED_PARAMETER(Drv);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = PadAdd;
    Drv->DriverUnload = PadUnload;
    Drv->MajorFunction[IRP_MJ_PNP] = PadPnp;
    Drv->MajorFunction[IRP_MJ_POWER] = PadPower;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = PadSystem;
    Drv->MajorFunction[IRP_MJ_CREATE] = PadFile;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = PadFile;
    Drv->MajorFunction[IRP_MJ_CLOSE] = PadFile;
    Drv->MajorFunction[IRP_MJ_READ] = PadRead;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PadControl;
    return STATUS_SUCCESS;
}
