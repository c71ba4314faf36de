/*
 * lcrpeek - inspection of boards with a PLX PCI 9052 bridge
 *
 * Lets a service program look at the local configuration registers of the
 * bridge (in BAR0), at the PCI configuration space of the board, and set the
 * user I/O pins in the CNTRL register.
 *
 * The bug: a request to the bus driver is given up by a time limit, and still refers to what is on the stack.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: irp-on-dead-stack, object-not-initialized
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/policy_owner.h"

#define LP_TAG          'kpcL'
#define LCR_BYTES       0x54
#define LCR_CNTRL       0x50
#define CNTRL_USERO     0x00000924u     /* user I/O 0..3 output data bits: 2, 5, 8, 11 */

#define IOCTL_LCR_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LCR_USERO CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CFG_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct { ULONG Offset; ULONG Length; } CFG_RANGE;

static const GUID LcrGuid =
    { 0xe5a2916d, 0x30fc, 0x4b17, { 0xbd, 0x48, 0x61, 0x09, 0xc3, 0x7e, 0x52, 0xaf } };

typedef struct LCR_DEVICE {
    PDEVICE_OBJECT  Fdo, Pdo, Lower;
    IO_REMOVE_LOCK  RemoveLock;
    UNICODE_STRING  Name;
    struct pwrpol   Power;
    KSPIN_LOCK      Lock;
    PUCHAR          Lcr;                /* Lock; NULL while there are no resources */
    SIZE_T          LcrLength;
    BOOLEAN         InD0;               /* Lock */
} LCR_DEVICE;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- registers ---- */

static NTSTATUS LcrRead(LCR_DEVICE *d, ULONG Offset, PULONG Value)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    if (Offset >= LCR_BYTES || (Offset & 3))
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&d->Lock, &irql);
    if (d->Lcr && d->InD0) {
        *Value = READ_REGISTER_ULONG((PULONG)(d->Lcr + Offset));
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    return status;
}

static NTSTATUS LcrSetUserOut(LCR_DEVICE *d, ULONG Pins)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    PULONG cntrl;
    ULONG v, i;
    KIRQL irql;

    if (Pins > 0xF)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&d->Lock, &irql);
    if (d->Lcr && d->InD0) {
        cntrl = (PULONG)(d->Lcr + LCR_CNTRL);
        v = READ_REGISTER_ULONG(cntrl) & ~CNTRL_USERO;
        for (i = 0; i < 4; i++)
            if (Pins & (1u << i))
                v |= 4u << (3 * i);
        WRITE_REGISTER_ULONG(cntrl, v);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    return status;
}

/* ---- configuration space ---- */

/* Asks the bus driver; PASSIVE_LEVEL. */
static NTSTATUS ReadConfig(LCR_DEVICE *d, ULONG Offset, PVOID Buffer, ULONG Length, PULONG_PTR Done)
{
    PIO_STACK_LOCATION next;
    IO_STATUS_BLOCK iosb;
    NTSTATUS status;
    KEVENT event;
    PIRP irp;

    RtlZeroMemory(&iosb, sizeof(iosb));
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, d->Lower, NULL, 0, NULL, &event, &iosb);
    if (!irp)
        return STATUS_INSUFFICIENT_RESOURCES;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    irp->IoStatus.Information = 0;
    next = IoGetNextIrpStackLocation(irp);
    next->MinorFunction = IRP_MN_READ_CONFIG;
    next->Parameters.ReadWriteConfig.WhichSpace = 0;    /* PCI_WHICHSPACE_CONFIG */
    next->Parameters.ReadWriteConfig.Buffer = Buffer;
    next->Parameters.ReadWriteConfig.Offset = Offset;
    next->Parameters.ReadWriteConfig.Length = Length;

    status = IoCallDriver(d->Lower, irp);
    if (status == STATUS_PENDING) {
#ifdef FIXED
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
#else
        LARGE_INTEGER limit;

        limit.QuadPart = -500LL * 10000;
        if (KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, &limit) == STATUS_TIMEOUT)
            return STATUS_IO_TIMEOUT;
#endif
        status = iosb.Status;
    }
    if (NT_SUCCESS(status)) {
        *Done = iosb.Information;
        if (*Done > Length)
            *Done = Length;
    }
    return status;
}

/* ---- dispatch ---- */

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    LCR_DEVICE *d = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sl->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    CFG_RANGE range;
    ULONG_PTR info = 0;
    NTSTATUS status;
    ULONG value;

    status = IoAcquireRemoveLock(&d->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Finish(Irp, status, 0);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LCR_READ:
        if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = LcrRead(d, *(PULONG)buf, &value);
        if (NT_SUCCESS(status)) {
            *(PULONG)buf = value;
            info = sizeof(ULONG);
        }
        break;
    case IOCTL_LCR_USERO:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : LcrSetUserOut(d, *(PULONG)buf);
        break;
    case IOCTL_CFG_READ:
        if (in < sizeof(CFG_RANGE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        range = *(CFG_RANGE *)buf;
        if (range.Length == 0 || range.Length > 256 || range.Offset > 256 - range.Length)
            status = STATUS_INVALID_PARAMETER;
        else if (out < range.Length)
            status = STATUS_BUFFER_TOO_SMALL;
        else {
            RtlZeroMemory(buf, range.Length);
            status = ReadConfig(d, range.Offset, buf, range.Length, &info);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Finish(Irp, status, info);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI OnCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static void SetD0(LCR_DEVICE *d, BOOLEAN InD0)
{
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    d->InD0 = InD0;
    KeReleaseSpinLock(&d->Lock, irql);
}

static void PowerUp(void *ctx)   { SetD0(ctx, TRUE); }
static void PowerDown(void *ctx) { SetD0(ctx, FALSE); }

static NTSTATUS NTAPI OnPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    LCR_DEVICE *d = DeviceObject->DeviceExtension;

    return pwrpol_dispatch(&d->Power, Irp);
}

static void Unmap(LCR_DEVICE *d)
{
    PUCHAR lcr;
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    lcr = d->Lcr;
    d->Lcr = NULL;
    KeReleaseSpinLock(&d->Lock, irql);
    if (lcr)
        MmUnmapIoSpace(lcr, d->LcrLength);
}

static NTSTATUS Start(LCR_DEVICE *d, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r;
    PUCHAR lcr;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    if (!List || !List->Count)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    for (i = 0; i < List->List[0].PartialResourceList.Count; i++) {
        r = &List->List[0].PartialResourceList.PartialDescriptors[i];
        if (r->Type != CmResourceTypeMemory)
            continue;
        /* the first memory range is BAR0 */
        if (r->u.Memory.Length < LCR_BYTES)
            break;
        lcr = MmMapIoSpace(r->u.Memory.Start, r->u.Memory.Length, MmNonCached);
        if (!lcr)
            return STATUS_INSUFFICIENT_RESOURCES;
        KeAcquireSpinLock(&d->Lock, &irql);
        d->Lcr = lcr;
        d->LcrLength = r->u.Memory.Length;
        d->InD0 = TRUE;
        KeReleaseSpinLock(&d->Lock, irql);

        status = IoSetDeviceInterfaceState(&d->Name, TRUE);
        if (!NT_SUCCESS(status)) {
            Unmap(d);
            return status;
        }
        return STATUS_SUCCESS;
    }
    return STATUS_DEVICE_CONFIGURATION_ERROR;
}

static NTSTATUS NTAPI OnPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    LCR_DEVICE *d = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&d->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Finish(Irp, status, 0);

    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(d->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = Start(d, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        Finish(Irp, status, 0);
        IoReleaseRemoveLock(&d->RemoveLock, Irp);
        return status;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&d->Name, FALSE);
        /* fall through */
    case IRP_MN_STOP_DEVICE:
        Unmap(d);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&d->Name, FALSE);
        Unmap(d);
        IoReleaseRemoveLockAndWait(&d->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(d->Lower, Irp);
        IoDetachDevice(d->Lower);
        RtlFreeUnicodeString(&d->Name);
        IoDeleteDevice(DeviceObject);
        return status;
    }

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI OnSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    LCR_DEVICE *d = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&d->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Finish(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI OnAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    LCR_DEVICE *d;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(LCR_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;
    d = fdo->DeviceExtension;
    RtlZeroMemory(d, sizeof(*d));
    d->Fdo = fdo;
    d->Pdo = Pdo;
    KeInitializeSpinLock(&d->Lock);
    IoInitializeRemoveLock(&d->RemoveLock, LP_TAG, 0, 0);

    status = IoRegisterDeviceInterface(Pdo, &LcrGuid, NULL, &d->Name);
    if (NT_SUCCESS(status)) {
        d->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
        if (!d->Lower) {
            RtlFreeUnicodeString(&d->Name);
            status = STATUS_NO_SUCH_DEVICE;
        }
    }
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }

    d->Power.self = fdo;
    d->Power.pdo = Pdo;
    d->Power.lower = d->Lower;
    d->Power.lock = &d->RemoveLock;
    d->Power.up = PowerUp;
    d->Power.down = PowerDown;
    d->Power.ctx = d;
    fdo->Flags |= DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = OnCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = OnCreateClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
    DriverObject->MajorFunction[IRP_MJ_PNP] = OnPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = OnPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
    DriverObject->DriverExtension->AddDevice = OnAddDevice;
    DriverObject->DriverUnload = OnUnload;
    return STATUS_SUCCESS;
}
