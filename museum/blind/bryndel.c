/*
 * bryndel: named tally. Applications add to the device's count, wait for it to reach a value, and read it with the
 * device's label; the label comes from the device's registry key, where a work item also keeps the count.
 *
 * The bug: the label is taken from the registry as a string that ends with a zero, which a REG_SZ value need not have;
 * the driver reads on behind the block, and what it finds there is given out as part of the label.
 *
 * Device: ROOT\BRYNDEL
 * Rule: pool-overrun
 * Needs: registry
 */
#include "../include/perch_pnp.h"

#define BRYNDEL_TAG         'nyrB'
#define BRYNDEL_LABEL       64          /* characters of the label at most */
#define BRYNDEL_MAX_ADD     1000u
#define BRYNDEL_SAVE_EVERY  64u
#define BRYNDEL_MAX_VALUE   4096u       /* bytes of a registry value that are looked at */

#define IOCTL_BRYNDEL_ADD   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BRYNDEL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BRYNDEL_INFO  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x943, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BRYNDEL_SAVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x944, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* {5E1B9C74-0A3F-4C57-8D21-E64F9B0D4404} */
static const GUID BryndelInterface = { 0x5e1b9c74, 0x0a3f, 0x4c57, { 0x8d, 0x21, 0xe6, 0x4f, 0x9b, 0x0d, 0x44, 0x04 } };

typedef struct _BRYNDEL_INFO {          /* output of IOCTL_BRYNDEL_INFO */
    ULONG Count;
    ULONG LabelBytes;
    WCHAR Label[BRYNDEL_LABEL];
} BRYNDEL_INFO, *PBRYNDEL_INFO;

#define BRYNDEL_IDLE    0               /* values of Saving */
#define BRYNDEL_BUSY    1               /* the work item runs and the count was not changed since it took it */
#define BRYNDEL_DIRTY   2               /* the work item is queued, or has to be once more */

typedef struct _BRYNDEL_EXT {
    PERCH_BASE Base;
    KSPIN_LOCK Lock;                    /* all below up to Saving, and Closed of the handles */
    LIST_ENTRY Waits;                   /* the value is in DriverContext[0] */
    ULONG Count;
    BOOLEAN Loaded;                     /* Count was read from the registry */
    ULONG LabelBytes;
    WCHAR Label[BRYNDEL_LABEL];
    volatile LONG Saving;
    PIO_WORKITEM Work;                  /* holds the remove lock under its own address unless idle */
} BRYNDEL_EXT, *PBRYNDEL_EXT;

typedef struct _BRYNDEL_HANDLE {
    BOOLEAN Closed;
} BRYNDEL_HANDLE, *PBRYNDEL_HANDLE;

static ULONG BryndelTarget(PIRP Irp)
{
    return (ULONG)(ULONG_PTR)Irp->Tail.Overlay.DriverContext[0];
}

static VOID NTAPI BryndelCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBRYNDEL_EXT Ext = (PBRYNDEL_EXT)DeviceObject->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PerchFinish(&Ext->Base, Irp, STATUS_CANCELLED, 0);
}

/* Lock held. Takes a wait off; it goes to List if the caller has to end it. */
static VOID BryndelTake(PIRP Irp, PLIST_ENTRY List)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    if (IoSetCancelRoutine(Irp, NULL) != NULL)
        InsertTailList(List, &Irp->Tail.Overlay.ListEntry);
    else
        InitializeListHead(&Irp->Tail.Overlay.ListEntry);
}

/* Ends all waits of File, or all at all if it is NULL. */
static VOID BryndelFlush(PBRYNDEL_EXT Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    PLIST_ENTRY Entry, Next;
    LIST_ENTRY List;
    PIRP Irp;
    KIRQL Irql;

    InitializeListHead(&List);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    for (Entry = Ext->Waits.Flink; Entry != &Ext->Waits; Entry = Next) {
        Next = Entry->Flink;
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == File)
            BryndelTake(Irp, &List);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    while (!IsListEmpty(&List))
        PerchFinish(&Ext->Base, CONTAINING_RECORD(RemoveHeadList(&List), IRP, Tail.Overlay.ListEntry), Status, 0);
}

/* The value in a new block of the paged pool; its DataLength bytes lie within the block. */
static NTSTATUS BryndelQuery(HANDLE Key, PCWSTR Name, PKEY_VALUE_PARTIAL_INFORMATION *Value)
{
    PKEY_VALUE_PARTIAL_INFORMATION Info;
    UNICODE_STRING String;
    NTSTATUS Status;
    ULONG Size = 0, Used = 0;

    RtlInitUnicodeString(&String, Name);
    Status = ZwQueryValueKey(Key, &String, KeyValuePartialInformation, NULL, 0, &Size);
    if (Status != STATUS_BUFFER_TOO_SMALL && Status != STATUS_BUFFER_OVERFLOW)
        return NT_SUCCESS(Status) ? STATUS_UNSUCCESSFUL : Status;
    if (Size < FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) || Size > BRYNDEL_MAX_VALUE)
        return STATUS_INVALID_BUFFER_SIZE;
    Info = (PKEY_VALUE_PARTIAL_INFORMATION)ExAllocatePoolWithTag(PagedPool, Size, BRYNDEL_TAG);
    if (Info == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Status = ZwQueryValueKey(Key, &String, KeyValuePartialInformation, Info, Size, &Used);
    if (NT_SUCCESS(Status) && Info->DataLength > Size - FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data))
        Status = STATUS_UNSUCCESSFUL;
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Info, BRYNDEL_TAG);
        return Status;
    }
    *Value = Info;
    return STATUS_SUCCESS;
}

static VOID BryndelLoadLabel(PBRYNDEL_EXT Ext, HANDLE Key)
{
    PKEY_VALUE_PARTIAL_INFORMATION Info;
    WCHAR Label[BRYNDEL_LABEL];
    const WCHAR *Text;
    ULONG Length;
    KIRQL Irql;

    if (!NT_SUCCESS(BryndelQuery(Key, L"Label", &Info)))
        return;
    if (Info->Type == REG_SZ) {
        Text = (const WCHAR *)Info->Data;
#ifdef FIXED
        Length = 0;
        while (Length < Info->DataLength / sizeof(WCHAR) && Text[Length] != 0)
            Length++;
#else
        UNICODE_STRING String;

        RtlInitUnicodeString(&String, Text);
        Length = String.Length / sizeof(WCHAR);
#endif
        if (Length > BRYNDEL_LABEL)
            Length = BRYNDEL_LABEL;

        /* Paged memory is not for the spin lock: by way of the stack. */
        RtlZeroMemory(Label, sizeof(Label));
        RtlCopyMemory(Label, Text, Length * sizeof(WCHAR));
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        RtlCopyMemory(Ext->Label, Label, sizeof(Label));
        Ext->LabelBytes = Length * sizeof(WCHAR);
        KeReleaseSpinLock(&Ext->Lock, Irql);
    }
    ExFreePoolWithTag(Info, BRYNDEL_TAG);
}

static VOID BryndelLoadCount(PBRYNDEL_EXT Ext, HANDLE Key)
{
    PKEY_VALUE_PARTIAL_INFORMATION Info;
    ULONG Count;
    KIRQL Irql;

    if (!NT_SUCCESS(BryndelQuery(Key, L"Count", &Info)))
        return;
    if (Info->Type == REG_DWORD && Info->DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&Count, Info->Data, sizeof(Count));
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Ext->Count = Count;
        KeReleaseSpinLock(&Ext->Lock, Irql);
    }
    ExFreePoolWithTag(Info, BRYNDEL_TAG);
}

static VOID BryndelWriteCount(PBRYNDEL_EXT Ext)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Count");
    ULONG Count;
    HANDLE Key;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Count = Ext->Count;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Ext->Base.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_SET_VALUE, &Key)))
        return;                                 /* the next save tries again */
    ZwSetValueKey(Key, &Name, 0, REG_DWORD, &Count, sizeof(Count));
    ZwClose(Key);
}

static VOID NTAPI BryndelSave(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PBRYNDEL_EXT Ext = (PBRYNDEL_EXT)Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    InterlockedExchange(&Ext->Saving, BRYNDEL_BUSY);
    BryndelWriteCount(Ext);
    if (InterlockedCompareExchange(&Ext->Saving, BRYNDEL_IDLE, BRYNDEL_BUSY) != BRYNDEL_BUSY) {
        IoQueueWorkItem(Ext->Work, BryndelSave, DelayedWorkQueue, Ext);
        return;
    }
    IoReleaseRemoveLock(&Ext->Base.RemoveLock, Ext->Work);
}

/* The caller holds the remove lock. */
static VOID BryndelSchedule(PBRYNDEL_EXT Ext)
{
    if (InterlockedExchange(&Ext->Saving, BRYNDEL_DIRTY) != BRYNDEL_IDLE)
        return;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&Ext->Base.RemoveLock, Ext->Work))) {
        InterlockedExchange(&Ext->Saving, BRYNDEL_IDLE);
        return;
    }
    IoQueueWorkItem(Ext->Work, BryndelSave, DelayedWorkQueue, Ext);
}

static VOID BryndelAdd(PBRYNDEL_EXT Ext, ULONG Add)
{
    PLIST_ENTRY Entry, Next;
    LIST_ENTRY List;
    ULONG Before, Count;
    PIRP Irp;
    KIRQL Irql;

    InitializeListHead(&List);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Before = Ext->Count;
    Count = Add > MAXULONG - Before ? MAXULONG : Before + Add;
    Ext->Count = Count;
    for (Entry = Ext->Waits.Flink; Entry != &Ext->Waits; Entry = Next) {
        Next = Entry->Flink;
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (BryndelTarget(Irp) <= Count)
            BryndelTake(Irp, &List);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);

    while (!IsListEmpty(&List)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&List), IRP, Tail.Overlay.ListEntry);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Count;
        PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (Before / BRYNDEL_SAVE_EVERY != Count / BRYNDEL_SAVE_EVERY)
        BryndelSchedule(Ext);
}

/* Called with the remove lock held for Irp; ends the request or pends it. */
static NTSTATUS BryndelWait(PBRYNDEL_EXT Ext, PBRYNDEL_HANDLE Handle, PIRP Irp)
{
    ULONG Target = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    ULONG Count;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Status = Handle->Closed ? STATUS_FILE_CLOSED : PerchStateStatus(&Ext->Base);
    Count = Ext->Count;
    if (NT_SUCCESS(Status) && Count < Target) {
        Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)Target;
        IoSetCancelRoutine(Irp, BryndelCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            InsertTailList(&Ext->Waits, &Irp->Tail.Overlay.ListEntry);
            KeReleaseSpinLock(&Ext->Lock, Irql);
            return STATUS_PENDING;
        }
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (!NT_SUCCESS(Status))
        return PerchFinish(&Ext->Base, Irp, Status, 0);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Count;
    return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI BryndelControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBRYNDEL_EXT Ext = (PBRYNDEL_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PBRYNDEL_HANDLE Handle;
    PBRYNDEL_INFO Info;
    ULONG_PTR Information = 0;
    NTSTATUS Status;
    ULONG Add;
    KIRQL Irql;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    Handle = Stack->FileObject != NULL ? (PBRYNDEL_HANDLE)Stack->FileObject->FsContext : NULL;
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_PARAMETER, 0);

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BRYNDEL_ADD:
        if (In != sizeof(ULONG)) {
            Status = STATUS_INVALID_BUFFER_SIZE;
            break;
        }
        Add = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (Add == 0 || Add > BRYNDEL_MAX_ADD) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        BryndelAdd(Ext, Add);
        break;

    case IOCTL_BRYNDEL_WAIT:
        if (In != sizeof(ULONG) || Out < sizeof(ULONG)) {
            Status = STATUS_INVALID_BUFFER_SIZE;
            break;
        }
        return BryndelWait(Ext, Handle, Irp);

    case IOCTL_BRYNDEL_INFO:
        if (Out < sizeof(BRYNDEL_INFO)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Info = (PBRYNDEL_INFO)Irp->AssociatedIrp.SystemBuffer;
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Info->Count = Ext->Count;
        Info->LabelBytes = Ext->LabelBytes;
        RtlCopyMemory(Info->Label, Ext->Label, sizeof(Info->Label));
        KeReleaseSpinLock(&Ext->Lock, Irql);
        Information = sizeof(BRYNDEL_INFO);
        break;

    case IOCTL_BRYNDEL_SAVE:
        BryndelSchedule(Ext);
        break;

    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return PerchFinish(&Ext->Base, Irp, Status, Information);
}

static NTSTATUS NTAPI BryndelCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBRYNDEL_EXT Ext = (PBRYNDEL_EXT)DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PBRYNDEL_HANDLE Handle;
    NTSTATUS Status;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    if (File == NULL || File->FileName.Length != 0)
        return PerchFinish(&Ext->Base, Irp, STATUS_OBJECT_NAME_INVALID, 0);
    Handle = (PBRYNDEL_HANDLE)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*Handle), BRYNDEL_TAG);
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    Handle->Closed = FALSE;
    File->FsContext = Handle;
    return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BryndelCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBRYNDEL_EXT Ext = (PBRYNDEL_EXT)DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PBRYNDEL_HANDLE Handle = (PBRYNDEL_HANDLE)File->FsContext;
    KIRQL Irql;

    if (Handle != NULL) {
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Handle->Closed = TRUE;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        BryndelFlush(Ext, File, STATUS_CANCELLED);
    }
    return PerchComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BryndelClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PVOID Handle = File->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    File->FsContext = NULL;
    if (Handle != NULL)
        ExFreePoolWithTag(Handle, BRYNDEL_TAG);
    return PerchComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PerchOnAdd(PPERCH_BASE Base)
{
    PBRYNDEL_EXT Ext = (PBRYNDEL_EXT)Base;

    KeInitializeSpinLock(&Ext->Lock);
    InitializeListHead(&Ext->Waits);
    Ext->Work = IoAllocateWorkItem(Base->Self);
    return Ext->Work != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

/* A device without its key or values works too, without label and from nought. */
static NTSTATUS PerchOnStart(PPERCH_BASE Base)
{
    PBRYNDEL_EXT Ext = (PBRYNDEL_EXT)Base;
    HANDLE Key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Base->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_QUERY_VALUE, &Key)))
        return STATUS_SUCCESS;
    BryndelLoadLabel(Ext, Key);
    if (!Ext->Loaded) {                         /* starts come one at a time */
        Ext->Loaded = TRUE;
        BryndelLoadCount(Ext, Key);
    }
    ZwClose(Key);
    return STATUS_SUCCESS;
}

static VOID PerchOnHalt(PPERCH_BASE Base)
{
    BryndelFlush((PBRYNDEL_EXT)Base, NULL, Base->State == PERCH_GONE ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY);
}

static VOID PerchOnDelete(PPERCH_BASE Base)
{
    IoFreeWorkItem(((PBRYNDEL_EXT)Base)->Work);
}

static NTSTATUS NTAPI BryndelAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return PerchAdd(Driver, Pdo, sizeof(BRYNDEL_EXT), BRYNDEL_TAG, &BryndelInterface);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    PerchDriver(Driver, BryndelAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = BryndelCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BryndelCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BryndelClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BryndelControl;
    return STATUS_SUCCESS;
}
