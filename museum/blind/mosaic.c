/*
 * mosaic.c - tiles of up to 256 bytes that are set from an application's own
 * memory, several at once.
 *
 * Requests are METHOD_NEITHER: lists of tiles and their bytes are taken from
 * where the application has them, in its context.  What the application may
 * change or take away meanwhile is touched in guarded functions only.
 *
 * The bug: SET checks a copy of the list and allocates by it, and copies the bytes by the lengths and offsets in
 * the application's memory, which it reads again.
 *
 * Device: Root\Mosaic
 * Rule: double-fetch
 * Needs: ioctl
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { StateAdded, StateStarted, StateStopped, StateGone, StateDeleted } PNP_STATE;

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    volatile LONG State;
} PNP_PART;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x9a41d705, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'asoM'
#define TILES 64
#define TILE_MOST 256
#define LIST_MOST 16

#define IOCTL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc50, METHOD_NEITHER, FILE_WRITE_ACCESS)
#define IOCTL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc51, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_JOIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc52, METHOD_NEITHER, FILE_WRITE_ACCESS)
#define IOCTL_LENGTHS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc53, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Tile;
    ULONG Length;
    ULONG Offset; /* of its bytes in the list's buffer; JOIN: Tile alone counts */
} PIECE;

/* As it is in the application's memory; SET: with the bytes behind it. */
typedef struct {
    ULONG Count;
    PIECE Pieces[1];
} LIST;

#define LIST_SIZE(n) (FIELD_OFFSET(LIST, Pieces) + (n) * sizeof(PIECE))

typedef struct {
    ULONG Length;
    UCHAR Bytes[1];
} TILE;

typedef struct {
    PNP_PART Pnp;
    FAST_MUTEX Mutex;
    TILE *Tiles[TILES]; /* NULL: empty */
} DEVICE_EXTENSION;

/* ---- guarded functions ------------------------------------------------------------ */

typedef NTSTATUS GUARDED(PVOID Context);

/* What the function returns, or STATUS_ACCESS_VIOLATION if it raised an exception. */
NTSTATUS MosaicGuard(GUARDED *Function, PVOID Context);

__asm__(".text\n"
        ".globl MosaicGuard\n"
        ".def MosaicGuard; .scl 2; .type 32; .endef\n"
        ".seh_proc MosaicGuard\n"
        "MosaicGuard:\n"
        "    subq $40, %rsp\n"
        "    .seh_stackalloc 40\n"
        "    .seh_endprologue\n"
        "    movq %rcx, %rax\n"
        "    movq %rdx, %rcx\n"
        "MosaicGuardBegin:\n"
        "    call *%rax\n"
        "    nop\n"
        "MosaicGuardEnd:\n"
        "    jmp MosaicGuardOut\n"
        "MosaicGuardRaised:\n"
        "    movl $0xc0000005, %eax\n"
        "MosaicGuardOut:\n"
        "    addq $40, %rsp\n"
        "    ret\n"
        "    .seh_handler __C_specific_handler, @except\n"
        "    .seh_handlerdata\n"
        "    .long 1\n"
        "    .rva MosaicGuardBegin, MosaicGuardEnd\n"
        "    .long 1\n"
        "    .rva MosaicGuardRaised\n"
        "    .text\n"
        "    .seh_endproc\n");

/* ---- SET: a list of pieces --------------------------------------------------------------- */

typedef struct {
    const volatile LIST *List; /* the application's */
    ULONG Length;
    BOOLEAN TilesOnly;
    ULONG Count;
    KPROCESSOR_MODE Mode;
    PIECE Pieces[LIST_MOST];
    TILE *New[LIST_MOST];
} SET_CONTEXT;

static VOID MosaicCopyPiece(PIECE *To, const volatile PIECE *From)
{
    To->Tile = From->Tile;
    To->Length = From->Length;
    To->Offset = From->Offset;
}

static VOID MosaicCopyBytes(volatile UCHAR *To, const volatile UCHAR *From, ULONG Length)
{
    while (Length-- != 0)
        *To++ = *From++;
}

static NTSTATUS MosaicCaptureList(PVOID Context)
{
    SET_CONTEXT *c = Context;
    ULONG i, Count;

    if (c->Mode != KernelMode)
        ProbeForRead((PVOID)c->List, c->Length, __alignof__(ULONG));
    Count = c->List->Count;
    if (Count == 0 || Count > LIST_MOST || c->Length < LIST_SIZE(Count))
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < Count; i++) {
        PIECE *p = &c->Pieces[i];

        MosaicCopyPiece(p, &c->List->Pieces[i]);
        if (p->Tile >= TILES)
            return STATUS_INVALID_PARAMETER;
        if (c->TilesOnly)
            continue;
        if (p->Length == 0 || p->Length > TILE_MOST || p->Offset > c->Length || p->Length > c->Length - p->Offset)
            return STATUS_INVALID_PARAMETER;
    }
    c->Count = Count;
    return STATUS_SUCCESS;
}

static NTSTATUS MosaicCaptureBytes(PVOID Context)
{
    SET_CONTEXT *c = Context;
    ULONG i;

    for (i = 0; i < c->Count; i++) {
#ifdef FIXED
        PIECE p = c->Pieces[i];
#else
        PIECE p;

        MosaicCopyPiece(&p, &c->List->Pieces[i]);
#endif
        MosaicCopyBytes(c->New[i]->Bytes, (PUCHAR)c->List + p.Offset, p.Length);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS MosaicSet(DEVICE_EXTENSION *x, PVOID List, ULONG Length, KPROCESSOR_MODE Mode)
{
    NTSTATUS Status;
    SET_CONTEXT *c;
    ULONG i;

    if (Length < LIST_SIZE(1))
        return STATUS_INVALID_PARAMETER;
    c = ExAllocatePoolWithTag(PagedPool, sizeof(SET_CONTEXT), POOL_TAG);
    if (c == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(c, sizeof(*c));
    c->List = List;
    c->Length = Length;
    c->Mode = Mode;
    Status = MosaicGuard(MosaicCaptureList, c);
    for (i = 0; i < c->Count && NT_SUCCESS(Status); i++) {
        c->New[i] = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(TILE, Bytes) + c->Pieces[i].Length, POOL_TAG);
        if (c->New[i] == NULL)
            Status = STATUS_INSUFFICIENT_RESOURCES;
        else
            c->New[i]->Length = c->Pieces[i].Length;
    }
    if (NT_SUCCESS(Status))
        Status = MosaicGuard(MosaicCaptureBytes, c);
    if (NT_SUCCESS(Status)) {
        /* All of them at once; what was there goes with the context. */
        ExAcquireFastMutex(&x->Mutex);
        for (i = 0; i < c->Count; i++) {
            TILE *Old = x->Tiles[c->Pieces[i].Tile];

            x->Tiles[c->Pieces[i].Tile] = c->New[i];
            c->New[i] = Old;
        }
        ExReleaseFastMutex(&x->Mutex);
    }
    for (i = 0; i < c->Count; i++)
        if (c->New[i] != NULL)
            ExFreePoolWithTag(c->New[i], POOL_TAG);
    ExFreePoolWithTag(c, POOL_TAG);
    return Status;
}

/* ---- GET: one tile ------------------------------------------------------------------------- */

typedef struct {
    const volatile ULONG *In;
    PUCHAR Out;
    ULONG Room;
    KPROCESSOR_MODE Mode;
    ULONG Tile;
    ULONG Length;
    UCHAR Bytes[TILE_MOST];
} GET_CONTEXT;

static NTSTATUS MosaicCaptureTile(PVOID Context)
{
    GET_CONTEXT *c = Context;

    if (c->Mode != KernelMode)
        ProbeForRead((PVOID)c->In, sizeof(ULONG), __alignof__(ULONG));
    c->Tile = *c->In;
    return c->Tile < TILES ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

static NTSTATUS MosaicReturnBytes(PVOID Context)
{
    GET_CONTEXT *c = Context;

    if (c->Mode != KernelMode)
        ProbeForWrite(c->Out, c->Length, 1);
    MosaicCopyBytes(c->Out, c->Bytes, c->Length);
    return STATUS_SUCCESS;
}

static NTSTATUS MosaicGet(DEVICE_EXTENSION *x, GET_CONTEXT *c, PULONG_PTR Information)
{
    NTSTATUS Status = MosaicGuard(MosaicCaptureTile, c);

    if (!NT_SUCCESS(Status))
        return Status;
    ExAcquireFastMutex(&x->Mutex);
    if (x->Tiles[c->Tile] == NULL) {
        Status = STATUS_NOT_FOUND;
    } else if (x->Tiles[c->Tile]->Length > c->Room) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        c->Length = x->Tiles[c->Tile]->Length;
        RtlCopyMemory(c->Bytes, x->Tiles[c->Tile]->Bytes, c->Length);
    }
    ExReleaseFastMutex(&x->Mutex);
    if (NT_SUCCESS(Status))
        Status = MosaicGuard(MosaicReturnBytes, c);
    if (NT_SUCCESS(Status))
        *Information = c->Length;
    return Status;
}

/* ---- JOIN: all tiles of a list become one, the first of them -------------------------------- */

static NTSTATUS MosaicJoin(DEVICE_EXTENSION *x, PVOID List, ULONG Length, KPROCESSOR_MODE Mode)
{
    ULONG i, k, Sum = 0, At = 0;
    TILE *New = NULL;
    NTSTATUS Status;
    SET_CONTEXT *c;

    if (Length < LIST_SIZE(1))
        return STATUS_INVALID_PARAMETER;
    c = ExAllocatePoolWithTag(PagedPool, sizeof(SET_CONTEXT), POOL_TAG);
    if (c == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(c, sizeof(*c));
    c->List = List;
    c->Length = Length;
    c->TilesOnly = TRUE;
    c->Mode = Mode;
    Status = MosaicGuard(MosaicCaptureList, c);
    for (i = 0; i < c->Count && NT_SUCCESS(Status); i++)
        for (k = 0; k < i; k++)
            if (c->Pieces[k].Tile == c->Pieces[i].Tile)
                Status = STATUS_INVALID_PARAMETER;
    if (NT_SUCCESS(Status)) {
        New = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(TILE, Bytes) + TILE_MOST, POOL_TAG);
        if (New == NULL)
            Status = STATUS_INSUFFICIENT_RESOURCES;
    }
    if (NT_SUCCESS(Status)) {
        ExAcquireFastMutex(&x->Mutex);
        for (i = 0; i < c->Count; i++) {
            if (x->Tiles[c->Pieces[i].Tile] == NULL)
                Status = STATUS_NOT_FOUND;
            else
                Sum += x->Tiles[c->Pieces[i].Tile]->Length;
        }
        if (NT_SUCCESS(Status) && Sum > TILE_MOST)
            Status = STATUS_BUFFER_OVERFLOW;
        if (Status == STATUS_SUCCESS) {
            for (i = 0; i < c->Count; i++) {
                TILE *Old = x->Tiles[c->Pieces[i].Tile];

                RtlCopyMemory(New->Bytes + At, Old->Bytes, Old->Length);
                At += Old->Length;
                x->Tiles[c->Pieces[i].Tile] = NULL;
                c->New[i] = Old;
            }
            New->Length = At;
            x->Tiles[c->Pieces[0].Tile] = New;
            New = NULL;
        }
        ExReleaseFastMutex(&x->Mutex);
    }
    for (i = 0; i < c->Count; i++)
        if (c->New[i] != NULL)
            ExFreePoolWithTag(c->New[i], POOL_TAG);
    if (New != NULL)
        ExFreePoolWithTag(New, POOL_TAG);
    ExFreePoolWithTag(c, POOL_TAG);
    return Status;
}

/* ---- the device --------------------------------------------------------------------------------- */

static NTSTATUS MosaicInit(DEVICE_EXTENSION *x)
{
    ExInitializeFastMutex(&x->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS MosaicStart(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

static VOID MosaicDrop(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID MosaicFree(DEVICE_EXTENSION *x)
{
    ULONG i;

    for (i = 0; i < TILES; i++)
        if (x->Tiles[i] != NULL)
            ExFreePoolWithTag(x->Tiles[i], POOL_TAG);
}

/* ---- Plug and Play, power ------------------------------------------------ */

static NTSTATUS MosaicPassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Pnp.Lower, Irp);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS MosaicPnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Pnp.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = MosaicStart(x);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Pnp.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Pnp.Interface, TRUE);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS MosaicPnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    LONG Previous = InterlockedExchange(&x->Pnp.State, StateDeleted);
    PDEVICE_OBJECT Lower = x->Pnp.Lower;
    NTSTATUS Status;

    if (Previous != StateGone) {
        IoSetDeviceInterfaceState(&x->Pnp.Interface, FALSE);
        MosaicDrop(x);
    }
    IoReleaseRemoveLockAndWait(&x->Pnp.RemoveLock, Irp);
    MosaicFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Pnp.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Pnp.Self);
    return Status;
}

static NTSTATUS NTAPI MosaicDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return MosaicPnpStart(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return MosaicPnpRemove(x, Irp);
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&x->Pnp.State, StateStopped);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->Pnp.State, StateGone);
        IoSetDeviceInterfaceState(&x->Pnp.Interface, FALSE);
        MosaicDrop(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return MosaicPassDown(x, Irp);
}

static NTSTATUS NTAPI MosaicDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Pnp.Lower, Irp);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI MosaicDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? MosaicPassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* Each request that comes in holds a remove lock until it ends. */
static NTSTATUS MosaicEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Pnp.State != StateStarted) {
        Status = x->Pnp.State == StateStopped ? STATUS_DEVICE_NOT_READY : STATUS_DEVICE_NOT_CONNECTED;
        IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    }
    return Status;
}

static NTSTATUS MosaicLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

/* ---- requests ------------------------------------------------------------------------------------- */

static NTSTATUS NTAPI MosaicDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = MosaicEnter(x, Irp);

    return NT_SUCCESS(Status) ? MosaicLeave(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS NTAPI MosaicDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MosaicDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MosaicDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID List = Stack->Parameters.DeviceIoControl.Type3InputBuffer;
    NTSTATUS Status = MosaicEnter(x, Irp);
    ULONG_PTR Information = 0;
    ULONG i;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SET:
        Status = MosaicSet(x, List, In, Irp->RequestorMode);
        break;
    case IOCTL_JOIN:
        Status = MosaicJoin(x, List, In, Irp->RequestorMode);
        break;
    case IOCTL_GET: {
        GET_CONTEXT *c;

        if (In != sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        c = ExAllocatePoolWithTag(PagedPool, sizeof(GET_CONTEXT), POOL_TAG);
        if (c == NULL) {
            Status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        c->In = List;
        c->Out = Irp->UserBuffer;
        c->Room = Out;
        c->Mode = Irp->RequestorMode;
        Status = MosaicGet(x, c, &Information);
        ExFreePoolWithTag(c, POOL_TAG);
        break;
    }
    case IOCTL_LENGTHS:
        if (Out < TILES * sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&x->Mutex);
        for (i = 0; i < TILES; i++)
            ((PULONG)Irp->AssociatedIrp.SystemBuffer)[i] = x->Tiles[i] != NULL ? x->Tiles[i]->Length : 0;
        ExReleaseFastMutex(&x->Mutex);
        Information = TILES * sizeof(ULONG);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return MosaicLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI MosaicAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    DEVICE_EXTENSION *x;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->Pnp.Self = Self;
    x->Pnp.Pdo = Pdo;
    x->Pnp.State = StateAdded;
    IoInitializeRemoveLock(&x->Pnp.RemoveLock, POOL_TAG, 0, 0);
    Status = MosaicInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Pnp.Interface);
    if (!NT_SUCCESS(Status)) {
        MosaicFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Pnp.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Pnp.Lower == NULL) {
        RtlFreeUnicodeString(&x->Pnp.Interface);
        MosaicFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI MosaicUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = MosaicAddDevice;
    Driver->DriverUnload = MosaicUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = MosaicDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MosaicDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = MosaicDispatchClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MosaicDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = MosaicDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = MosaicDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = MosaicDispatchSystemControl;
    return STATUS_SUCCESS;
}
