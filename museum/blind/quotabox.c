/*
 * quotabox - credit accounts for cooperating services
 *
 * \\.\QuotaBox keeps sixteen accounts.  Services take credits from an account,
 * put them back, and move them from one account to another; the sum over all
 * accounts is an invariant that IOCTL_QB_AUDIT reports.
 *
 * The bug: two accounts are locked in the order in which the caller names them.
 *
 * Device: none
 * Rule: lock-order-inversion, deadlock
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define QB_ACCOUNTS     16u
#define QB_INITIAL      1000u

#define QB_IOCTL(f)     CTL_CODE(FILE_DEVICE_UNKNOWN, (f), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QB_TAKE   QB_IOCTL(0x820)
#define IOCTL_QB_MOVE   QB_IOCTL(0x821)
#define IOCTL_QB_LOOK   QB_IOCTL(0x822)
#define IOCTL_QB_AUDIT  QB_IOCTL(0x823)

typedef struct { ULONG Account; LONG Amount; } QB_TAKE;
typedef struct { ULONG From; ULONG To; ULONG Amount; } QB_MOVE;
typedef struct { ULONG Account; ULONG Balance; ULONG Operations; } QB_LOOK;
typedef struct { ULONG64 Total; ULONG64 Outstanding; } QB_AUDIT;

typedef struct {
    FAST_MUTEX  Mutex;
    ULONG       Balance;
    ULONG       Operations;
} QB_ACCOUNT;

typedef struct {
    QB_ACCOUNT      Account[QB_ACCOUNTS];
    volatile LONG64 Outstanding;
} QB_EXTENSION;

static UNICODE_STRING QbDevice  = RTL_CONSTANT_STRING(L"\\Device\\QuotaBox");
static UNICODE_STRING QbSymLink = RTL_CONSTANT_STRING(L"\\DosDevices\\QuotaBox");

static NTSTATUS QbTake(QB_EXTENSION *Ext, const QB_TAKE *In)
{
    QB_ACCOUNT *a;
    NTSTATUS status = STATUS_SUCCESS;

    if (In->Account >= QB_ACCOUNTS)
        return STATUS_INVALID_PARAMETER;
    a = &Ext->Account[In->Account];

    ExAcquireFastMutex(&a->Mutex);
    if (In->Amount >= 0) {
        if ((ULONG)In->Amount > a->Balance)
            status = STATUS_QUOTA_EXCEEDED;
        else
            a->Balance -= (ULONG)In->Amount;
    } else {
        ULONG back = 0u - (ULONG)In->Amount;
        if (back > MAXULONG - a->Balance)
            status = STATUS_INTEGER_OVERFLOW;
        else
            a->Balance += back;
    }
    if (NT_SUCCESS(status)) {
        a->Operations++;
        InterlockedExchangeAdd64(&Ext->Outstanding, In->Amount);
    }
    ExReleaseFastMutex(&a->Mutex);
    return status;
}

static NTSTATUS QbMove(QB_EXTENSION *Ext, const QB_MOVE *In)
{
    QB_ACCOUNT *from, *to, *first, *second;
    NTSTATUS status = STATUS_SUCCESS;

    if (In->From >= QB_ACCOUNTS || In->To >= QB_ACCOUNTS || In->From == In->To)
        return STATUS_INVALID_PARAMETER;

    from = &Ext->Account[In->From];
    to = &Ext->Account[In->To];
#ifdef FIXED
    first = In->From < In->To ? from : to;
    second = In->From < In->To ? to : from;
#else
    first = from;
    second = to;
#endif

    ExAcquireFastMutex(&first->Mutex);
    ExAcquireFastMutex(&second->Mutex);
    if (In->Amount > from->Balance) {
        status = STATUS_QUOTA_EXCEEDED;
    } else if (In->Amount > MAXULONG - to->Balance) {
        status = STATUS_INTEGER_OVERFLOW;
    } else {
        from->Balance -= In->Amount;
        to->Balance += In->Amount;
        from->Operations++;
        to->Operations++;
    }
    ExReleaseFastMutex(&second->Mutex);
    ExReleaseFastMutex(&first->Mutex);
    return status;
}

static NTSTATUS QbLook(QB_EXTENSION *Ext, QB_LOOK *InOut)
{
    ULONG n = InOut->Account;
    QB_ACCOUNT *a;

    if (n >= QB_ACCOUNTS)
        return STATUS_INVALID_PARAMETER;
    a = &Ext->Account[n];
    ExAcquireFastMutex(&a->Mutex);
    InOut->Balance = a->Balance;
    InOut->Operations = a->Operations;
    ExReleaseFastMutex(&a->Mutex);
    return STATUS_SUCCESS;
}

/* Takes all the accounts, in ascending order, so that the sum is of one moment. */
static VOID QbAudit(QB_EXTENSION *Ext, QB_AUDIT *Out)
{
    ULONG64 total = 0;
    ULONG i;

    for (i = 0; i < QB_ACCOUNTS; i++) {
        ExAcquireFastMutex(&Ext->Account[i].Mutex);
        total += Ext->Account[i].Balance;
    }
    Out->Total = total;
    Out->Outstanding = (ULONG64)InterlockedExchangeAdd64(&Ext->Outstanding, 0);
    while (i-- > 0)
        ExReleaseFastMutex(&Ext->Account[i].Mutex);
}

static NTSTATUS NTAPI QbDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    QB_EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION io = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLen = io->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLen = io->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID data = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_BUFFER_TOO_SMALL;

    Irp->IoStatus.Information = 0;
    switch (io->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QB_TAKE:
        if (inLen >= sizeof(QB_TAKE))
            status = QbTake(ext, data);
        break;
    case IOCTL_QB_MOVE:
        if (inLen >= sizeof(QB_MOVE))
            status = QbMove(ext, data);
        break;
    case IOCTL_QB_LOOK:
        if (inLen >= sizeof(ULONG) && outLen >= sizeof(QB_LOOK)) {
            status = QbLook(ext, data);
            if (NT_SUCCESS(status))
                Irp->IoStatus.Information = sizeof(QB_LOOK);
        }
        break;
    case IOCTL_QB_AUDIT:
        if (outLen >= sizeof(QB_AUDIT)) {
            QbAudit(ext, data);
            Irp->IoStatus.Information = sizeof(QB_AUDIT);
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI QbDispatchOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI QbUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&QbSymLink);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    QB_EXTENSION *ext;
    PDEVICE_OBJECT device;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);

    status = IoCreateDevice(Driver, sizeof(QB_EXTENSION), &QbDevice, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;

    ext = device->DeviceExtension;
    for (i = 0; i < QB_ACCOUNTS; i++) {
        ExInitializeFastMutex(&ext->Account[i].Mutex);
        ext->Account[i].Balance = QB_INITIAL;
    }

    Driver->MajorFunction[IRP_MJ_CREATE] = QbDispatchOpen;
    Driver->MajorFunction[IRP_MJ_CLOSE] = QbDispatchOpen;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = QbDispatchControl;
    Driver->DriverUnload = QbUnload;

    status = IoCreateSymbolicLink(&QbSymLink, &QbDevice);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
