/*
 * scrip: vouchers. A program issues vouchers with up to 2000 bytes of text to its handle and redeems them later by number, once each; the memory is charged to
 * the quota of the program.
 *
 * The bug: ExAllocatePoolWithQuotaTag is used as if it returned NULL when there is no memory or no quota left. Without POOL_QUOTA_FAIL_INSTEAD_OF_RAISE it
 * raises an exception, which no one handles, and the machine stops.
 *
 * Device: ROOT\SCRIP
 * Rule: unhandled-exception
 * Needs: failure
 */
#include "../include/ticking_card.h"

#define TEXT 2000
#define MOST 4096

#define IOCTL_SCRIP_ISSUE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SCRIP_REDEEM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SCRIP_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x962, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifdef FIXED
#define SCRIP_POOL ((POOL_TYPE)(NonPagedPool | POOL_QUOTA_FAIL_INSTEAD_OF_RAISE))
#else
#define SCRIP_POOL NonPagedPool
#endif

static const GUID SCRIP_GUID = {0x5d0b6c11, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x01}};

typedef struct _VOUCHER {
    LIST_ENTRY Link;
    PFILE_OBJECT File;
    ULONG64 Number;
    ULONG Length;
    UCHAR Text[1];
} VOUCHER, *PVOUCHER;

typedef struct _SCRIP {
    ZDEV Dev;
    KSPIN_LOCK Lock;
    LIST_ENTRY Vouchers;
    ULONG Count;
    ULONG64 Last;
} SCRIP, *PSCRIP;

static NTSTATUS Issue(PSCRIP x, PFILE_OBJECT File, const UCHAR *Text, ULONG Length, PULONG64 Number)
{
    PVOUCHER v;
    KIRQL Irql;

    if (!Length || Length > TEXT)
        return STATUS_INVALID_PARAMETER;
    v = ExAllocatePoolWithQuotaTag(SCRIP_POOL, FIELD_OFFSET(VOUCHER, Text) + Length, 'rcSZ');
    if (!v)
        return STATUS_INSUFFICIENT_RESOURCES;
    v->File = File;
    v->Length = Length;
    RtlCopyMemory(v->Text, Text, Length);

    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Count >= MOST) {
        KeReleaseSpinLock(&x->Lock, Irql);
        ExFreePoolWithTag(v, 'rcSZ');
        return STATUS_QUOTA_EXCEEDED;
    }
    x->Count++;
    *Number = v->Number = ++x->Last;
    InsertTailList(&x->Vouchers, &v->Link);
    KeReleaseSpinLock(&x->Lock, Irql);
    return STATUS_SUCCESS;
}

/* Takes out a voucher of the file (of any file, if it is NULL) with this number (0: any) whose text is at most Room bytes long. */
static NTSTATUS TakeOut(PSCRIP x, PFILE_OBJECT File, ULONG64 Number, ULONG Room, PVOUCHER *Found)
{
    NTSTATUS Status = STATUS_NOT_FOUND;
    PLIST_ENTRY e;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    for (e = x->Vouchers.Flink; e != &x->Vouchers; e = e->Flink) {
        PVOUCHER v = CONTAINING_RECORD(e, VOUCHER, Link);

        if ((File && v->File != File) || (Number && v->Number != Number))
            continue;
        if (v->Length > Room) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RemoveEntryList(&v->Link);
        x->Count--;
        *Found = v;
        Status = STATUS_SUCCESS;
        break;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static NTSTATUS ScripRequest(PZDEV d, PIRP Irp)
{
    PSCRIP x = CONTAINING_RECORD(d, SCRIP, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG InLength, OutLength;
    ULONG64 Number;
    PVOUCHER v;
    NTSTATUS Status;

    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SCRIP_ISSUE:
        if (OutLength < sizeof(Number))
            return STATUS_BUFFER_TOO_SMALL;
        Status = Issue(x, sl->FileObject, Buffer, InLength, &Number);
        if (NT_SUCCESS(Status)) {
            *(PULONG64)Buffer = Number;
            Irp->IoStatus.Information = sizeof(Number);
        }
        return Status;

    case IOCTL_SCRIP_REDEEM:
        if (InLength < sizeof(Number))
            return STATUS_INVALID_PARAMETER;
        Number = *(PULONG64)Buffer;
        if (!Number)
            return STATUS_INVALID_PARAMETER;
        Status = TakeOut(x, sl->FileObject, Number, OutLength, &v);
        if (NT_SUCCESS(Status)) {
            RtlCopyMemory(Buffer, v->Text, v->Length);
            Irp->IoStatus.Information = v->Length;
            ExFreePoolWithTag(v, 'rcSZ');
        }
        return Status;

    case IOCTL_SCRIP_COUNT:
        if (OutLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *(PULONG)Buffer = *(volatile ULONG *)&x->Count;
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID ScripClose(PZDEV d, PFILE_OBJECT File)
{
    PVOUCHER v;

    while (NT_SUCCESS(TakeOut(CONTAINING_RECORD(d, SCRIP, Dev), File, 0, TEXT, &v)))
        ExFreePoolWithTag(v, 'rcSZ');
}

static NTSTATUS ScripAdd(PZDEV d)
{
    PSCRIP x = CONTAINING_RECORD(d, SCRIP, Dev);

    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Vouchers);
    return STATUS_SUCCESS;
}

static const ZOPS ScripOps = {
    .Interface = &SCRIP_GUID,
    .ExtensionSize = sizeof(SCRIP),
    .Flags = DO_BUFFERED_IO,
    .Add = ScripAdd,
    .Close = ScripClose,
    .Request = ScripRequest,
};

static NTSTATUS NTAPI ScripAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &ScripOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, ScripAddDevice);
}
