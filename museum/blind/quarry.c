/*
 * quarry.c - settings that outlast the machine.
 *
 * There are 16 slots of up to 64 bytes.  SET fills one and, if that is wanted,
 * puts it into the device's key of the registry; GET gets one, COPY makes two of
 * one, ERASE empties one, here and there.  SLOTS says which are in use.  What
 * is in the registry is read when the device is started; when it is stopped
 * all is forgotten that is not there.
 *
 * The bug: a record that is read from the registry is not zeroed, and GET copies all of it: what nothing was
 * stored in comes behind the data.
 *
 * Device: Root\Quarry
 * Rule: output-never-stored
 * Needs: ioctl, removal
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { PhaseAdded, PhaseStarted, PhaseStopped, PhaseSurprise, PhaseRemoved } PHASE;

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Next; /* the device below */
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING SymbolicName;
    volatile LONG Phase;
} COMMON;

static NTSTATUS CompleteIrp(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x3f20b105, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'rauQ'
#define SLOTS 16
#define DATA_MOST 64
#define LASTING 1

#define IOCTL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb50, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb51, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_COPY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb52, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ERASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb53, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SLOTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb54, METHOD_BUFFERED, FILE_READ_ACCESS)

/* SET: as much of it as Length says; GET: all of it. */
typedef struct {
    ULONG Slot;
    ULONG Flags;
    ULONG Length;
    UCHAR Data[DATA_MOST];
} RECORD;

typedef struct {
    ULONG From;
    ULONG To;
} COPY_REQUEST;

typedef struct {
    ULONG Used;    /* bits */
    ULONG Lasting; /* those of them that are in the registry */
} SLOTS_REPLY;

typedef struct {
    COMMON Common;
    KMUTEX Mutex; /* all below; the registry is asked with it held */
    BOOLEAN Loaded;
    RECORD *Slots[SLOTS];
} DEVICE_EXT;

static VOID Lock(DEVICE_EXT *x)
{
    KeWaitForSingleObject(&x->Mutex, Executive, KernelMode, FALSE, NULL);
}

static VOID Unlock(DEVICE_EXT *x)
{
    KeReleaseMutex(&x->Mutex, FALSE);
}

/* ---- the registry ------------------------------------------------------------------- */

typedef struct {
    WCHAR Text[8];
    UNICODE_STRING String;
} VALUE_NAME;

static VOID NameValue(VALUE_NAME *n, ULONG Slot)
{
    n->Text[0] = 'S';
    n->Text[1] = 'l';
    n->Text[2] = 'o';
    n->Text[3] = 't';
    n->Text[4] = (WCHAR)('0' + Slot / 10);
    n->Text[5] = (WCHAR)('0' + Slot % 10);
    n->Text[6] = 0;
    RtlInitUnicodeString(&n->String, n->Text);
}

static NTSTATUS OpenKey(DEVICE_EXT *x, ACCESS_MASK Access, PHANDLE Key)
{
    return IoOpenDeviceRegistryKey(x->Common.Pdo, PLUGPLAY_REGKEY_DEVICE, Access, Key);
}

static NTSTATUS StoreValue(DEVICE_EXT *x, const RECORD *r)
{
    VALUE_NAME Name;
    NTSTATUS Status;
    HANDLE Key;

    Status = OpenKey(x, KEY_WRITE, &Key);
    if (!NT_SUCCESS(Status))
        return Status;
    NameValue(&Name, r->Slot);
    Status = ZwSetValueKey(Key, &Name.String, 0, REG_BINARY, (PVOID)r->Data, r->Length);
    ZwClose(Key);
    return Status;
}

static NTSTATUS DeleteValue(DEVICE_EXT *x, ULONG Slot)
{
    VALUE_NAME Name;
    NTSTATUS Status;
    HANDLE Key;

    Status = OpenKey(x, KEY_WRITE, &Key);
    if (!NT_SUCCESS(Status))
        return Status;
    NameValue(&Name, Slot);
    Status = ZwDeleteValueKey(Key, &Name.String);
    ZwClose(Key);
    return Status == STATUS_OBJECT_NAME_NOT_FOUND ? STATUS_SUCCESS : Status;
}

/* With the mutex held.  Values that are no settings are left alone. */
static NTSTATUS LoadValue(DEVICE_EXT *x, HANDLE Key, ULONG Slot)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Value;
        UCHAR Room[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + DATA_MOST];
    } u;
    VALUE_NAME Name;
    NTSTATUS Status;
    ULONG Length;
    RECORD *r;

    NameValue(&Name, Slot);
    Status = ZwQueryValueKey(Key, &Name.String, KeyValuePartialInformation, &u, sizeof(u), &Length);
    if (Status == STATUS_INSUFFICIENT_RESOURCES || Status == STATUS_NO_MEMORY)
        return Status;
    if (!NT_SUCCESS(Status) || u.Value.Type != REG_BINARY || u.Value.DataLength > DATA_MOST)
        return STATUS_SUCCESS;
    r = ExAllocatePoolWithTag(PagedPool, sizeof(*r), POOL_TAG);
    if (r == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    RtlZeroMemory(r, sizeof(*r));
#endif
    r->Slot = Slot;
    r->Flags = LASTING;
    r->Length = u.Value.DataLength;
    RtlCopyMemory(r->Data, u.Value.Data, r->Length);
    x->Slots[Slot] = r;
    return STATUS_SUCCESS;
}

/* ---- slots: with the mutex held ------------------------------------------------------- */

static VOID FreeSlot(DEVICE_EXT *x, ULONG Slot)
{
    if (x->Slots[Slot] != NULL)
        ExFreePoolWithTag(x->Slots[Slot], POOL_TAG);
    x->Slots[Slot] = NULL;
}

static VOID FreeSlots(DEVICE_EXT *x)
{
    ULONG i;

    for (i = 0; i < SLOTS; i++)
        FreeSlot(x, i);
    x->Loaded = FALSE;
}

static NTSTATUS LoadSlots(DEVICE_EXT *x)
{
    NTSTATUS Status;
    HANDLE Key;
    ULONG i;

    Status = OpenKey(x, KEY_READ, &Key);
    if (!NT_SUCCESS(Status))
        return Status;
    for (i = 0; i < SLOTS && NT_SUCCESS(Status); i++)
        Status = LoadValue(x, Key, i);
    ZwClose(Key);
    if (NT_SUCCESS(Status))
        x->Loaded = TRUE;
    else
        FreeSlots(x);
    return Status;
}

/* Puts a record into its slot, and into the registry if it is to last. */
static NTSTATUS PutRecord(DEVICE_EXT *x, RECORD *r)
{
    RECORD *Old = x->Slots[r->Slot];
    NTSTATUS Status = STATUS_SUCCESS;

    if (r->Flags & LASTING)
        Status = StoreValue(x, r);
    else if (Old != NULL && (Old->Flags & LASTING))
        Status = DeleteValue(x, r->Slot);
    if (!NT_SUCCESS(Status))
        return Status;
    FreeSlot(x, r->Slot);
    x->Slots[r->Slot] = r;
    return STATUS_SUCCESS;
}

static NTSTATUS Set(DEVICE_EXT *x, const RECORD *In, ULONG Length)
{
    NTSTATUS Status;
    RECORD *r;

    if (Length < FIELD_OFFSET(RECORD, Data) || In->Slot >= SLOTS || (In->Flags & ~LASTING) ||
        In->Length > DATA_MOST || In->Length != Length - FIELD_OFFSET(RECORD, Data))
        return STATUS_INVALID_PARAMETER;
    r = ExAllocatePoolWithTag(PagedPool, sizeof(*r), POOL_TAG);
    if (r == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(r, sizeof(*r));
    RtlCopyMemory(r, In, Length);
    Status = PutRecord(x, r);
    if (!NT_SUCCESS(Status))
        ExFreePoolWithTag(r, POOL_TAG);
    return Status;
}

static NTSTATUS Get(DEVICE_EXT *x, ULONG Slot, RECORD *Out)
{
    if (Slot >= SLOTS)
        return STATUS_INVALID_PARAMETER;
    if (x->Slots[Slot] == NULL)
        return STATUS_NOT_FOUND;
    RtlCopyMemory(Out, x->Slots[Slot], sizeof(*Out));
    return STATUS_SUCCESS;
}

static NTSTATUS Copy(DEVICE_EXT *x, const COPY_REQUEST *c)
{
    NTSTATUS Status;
    RECORD *r;

    if (c->From >= SLOTS || c->To >= SLOTS || c->From == c->To)
        return STATUS_INVALID_PARAMETER;
    if (x->Slots[c->From] == NULL)
        return STATUS_NOT_FOUND;
    r = ExAllocatePoolWithTag(PagedPool, sizeof(*r), POOL_TAG);
    if (r == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(r, x->Slots[c->From], sizeof(*r));
    r->Slot = c->To;
    Status = PutRecord(x, r);
    if (!NT_SUCCESS(Status))
        ExFreePoolWithTag(r, POOL_TAG);
    return Status;
}

static NTSTATUS Erase(DEVICE_EXT *x, ULONG Slot)
{
    NTSTATUS Status = STATUS_SUCCESS;

    if (Slot >= SLOTS)
        return STATUS_INVALID_PARAMETER;
    if (x->Slots[Slot] == NULL)
        return STATUS_NOT_FOUND;
    if (x->Slots[Slot]->Flags & LASTING)
        Status = DeleteValue(x, Slot);
    if (NT_SUCCESS(Status))
        FreeSlot(x, Slot);
    return Status;
}

static VOID CountSlots(DEVICE_EXT *x, SLOTS_REPLY *Reply)
{
    ULONG i;

    Reply->Used = Reply->Lasting = 0;
    for (i = 0; i < SLOTS; i++) {
        if (x->Slots[i] == NULL)
            continue;
        Reply->Used |= 1u << i;
        if (x->Slots[i]->Flags & LASTING)
            Reply->Lasting |= 1u << i;
    }
}

/* ---- the device ------------------------------------------------------------------- */

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    KeInitializeMutex(&x->Mutex, 0);
    return STATUS_SUCCESS;
}

static NTSTATUS DevStart(DEVICE_EXT *x)
{
    NTSTATUS Status;

    Lock(x);
    Status = LoadSlots(x);
    Unlock(x);
    return Status;
}

static VOID DevStop(DEVICE_EXT *x)
{
    Lock(x);
    FreeSlots(x);
    Unlock(x);
}

/* No one waits for anything here. */
static VOID DevGone(DEVICE_EXT *x)
{
    DevStop(x);
}

static VOID DevFree(DEVICE_EXT *x)
{
    FreeSlots(x);
}

/* ---- Plug and Play, power ------------------------------------------------- */

static NTSTATUS ForwardAndRelease(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Common.Next, Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS PnpStart(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Common.Next, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = DevStart(x);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Common.Phase, PhaseStarted);
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, TRUE);
    }
    CompleteIrp(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS PnpRemove(DEVICE_EXT *x, PIRP Irp)
{
    PDEVICE_OBJECT Device = x->Common.Self;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Common.Phase, PhaseRemoved) != PhaseSurprise)
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
    DevGone(x);
    IoReleaseRemoveLockAndWait(&x->Common.RemoveLock, Irp);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Common.Next, Irp);
    DevFree(x);
    RtlFreeUnicodeString(&x->Common.SymbolicName);
    IoDetachDevice(x->Common.Next);
    IoDeleteDevice(Device);
    return Status;
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return PnpStart(x, Irp);
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&x->Common.Phase, PhaseStopped);
        DevStop(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->Common.Phase, PhaseSurprise);
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
        DevGone(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return PnpRemove(x, Irp);
    default:
        return ForwardAndRelease(x, Irp);
    }
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Common.Next, Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? ForwardAndRelease(x, Irp) : CompleteIrp(Irp, Status, 0);
}

static NTSTATUS AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    NTSTATUS Status;
    DEVICE_EXT *x;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXT), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN,
                            FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->Common.Self = Self;
    x->Common.Pdo = Pdo;
    x->Common.Phase = PhaseAdded;
    IoInitializeRemoveLock(&x->Common.RemoveLock, POOL_TAG, 0, 0);
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Common.SymbolicName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    x->Common.Next = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Common.Next == NULL) {
        RtlFreeUnicodeString(&x->Common.SymbolicName);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Status = DevInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDetachDevice(x->Common.Next);
        RtlFreeUnicodeString(&x->Common.SymbolicName);
        IoDeleteDevice(Self);
        return Status;
    }
    Self->Flags |= DO_POWER_PAGABLE | DO_BUFFERED_IO;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- requests ----------------------------------------------------------------- */

/* Keeps the device while a dispatch routine works on a request. */
static NTSTATUS Begin(DEVICE_EXT *x)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Begin);

    if (NT_SUCCESS(Status) && x->Common.Phase != PhaseStarted && x->Common.Phase != PhaseStopped) {
        IoReleaseRemoveLock(&x->Common.RemoveLock, Begin);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static VOID End(DEVICE_EXT *x)
{
    IoReleaseRemoveLock(&x->Common.RemoveLock, Begin);
}

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = Begin(x);

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    CompleteIrp(Irp, STATUS_SUCCESS, 0);
    End(x);
    return STATUS_SUCCESS;
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = Begin(x);

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    Lock(x);
    if (!x->Loaded) {
        Status = STATUS_DEVICE_NOT_READY;
        goto Out;
    }
    switch (Code) {
    case IOCTL_SET:
        Status = Set(x, Buffer, In);
        break;
    case IOCTL_GET:
        if (In < sizeof(ULONG) || Out < sizeof(RECORD)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = Get(x, *(PULONG)Buffer, Buffer);
        Information = NT_SUCCESS(Status) ? sizeof(RECORD) : 0;
        break;
    case IOCTL_COPY:
        Status = In < sizeof(COPY_REQUEST) ? STATUS_INVALID_PARAMETER : Copy(x, Buffer);
        break;
    case IOCTL_ERASE:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : Erase(x, *(PULONG)Buffer);
        break;
    case IOCTL_SLOTS:
        if (Out < sizeof(SLOTS_REPLY)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        CountSlots(x, Buffer);
        Information = sizeof(SLOTS_REPLY);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
Out:
    Unlock(x);
    CompleteIrp(Irp, Status, Information);
    End(x);
    return Status;
}

#define GLOBALS
#define ENTRIES Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

static VOID Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    GLOBALS
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    ENTRIES
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    return STATUS_SUCCESS;
}
