/*
 * lamplit: a make-believe row of lamps. A program gives it a pattern and then starts shows; each show is a
 * work item that goes through the pattern lamp by lamp, waiting 20 ms after each.
 *
 * The bug: a show's work item does not hold the remove lock, so it still reads the pattern that removal has freed.
 *
 * Device: ROOT\LAMPLIT
 * Rule: wild-read, use-after-free
 * Needs: removal
 */
#include "../include/kit_hooks.h"

static const GUID LampGuid = { 0x5d0f7a21, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x22, 0x01 } };

#define IOCTL_LAMP_PATTERN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LAMP_SHOW    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LAMP_LIT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x972, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LAMPS 64u
#define MAX_SHOWS 8

typedef struct _LAMP {
    KIT Kit;
    PUCHAR Pattern;             /* LAMPS bytes, from start to removal */
    volatile LONG Lit;          /* how many lamps have been lit */
    volatile LONG Shows;        /* how many shows are under way */
} LAMP, *PLAMP;

typedef struct _LAMP_SHOW {
    PIO_WORKITEM Item;
} LAMP_SHOW, *PLAMP_SHOW;

static VOID NTAPI LampShow(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PLAMP lamp = DeviceObject->DeviceExtension;
    PLAMP_SHOW show = Context;
    LARGE_INTEGER pause;
    ULONG i;

    pause.QuadPart = -20 * 10000LL;
    for (i = 0; i < LAMPS; i++) {
        if (*(volatile UCHAR *)&lamp->Pattern[i])
            InterlockedIncrement(&lamp->Lit);
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    InterlockedDecrement(&lamp->Shows);
    IoFreeWorkItem(show->Item);
#ifdef FIXED
    IoReleaseRemoveLock(&lamp->Kit.RemoveLock, show);
#endif
    ExFreePoolWithTag(show, 'pmaL');
}

static NTSTATUS LampBegin(PLAMP Lamp)
{
    PLAMP_SHOW show;

    if (InterlockedIncrement(&Lamp->Shows) > MAX_SHOWS) {
        InterlockedDecrement(&Lamp->Shows);
        return STATUS_DEVICE_BUSY;
    }
    show = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*show), 'pmaL');
    if (!show) {
        InterlockedDecrement(&Lamp->Shows);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    show->Item = IoAllocateWorkItem(Lamp->Kit.Self);
    if (!show->Item) {
        ExFreePoolWithTag(show, 'pmaL');
        InterlockedDecrement(&Lamp->Shows);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
#ifdef FIXED
    {
        NTSTATUS status = IoAcquireRemoveLock(&Lamp->Kit.RemoveLock, show);
        if (!NT_SUCCESS(status)) {
            IoFreeWorkItem(show->Item);
            ExFreePoolWithTag(show, 'pmaL');
            InterlockedDecrement(&Lamp->Shows);
            return status;
        }
    }
#endif
    IoQueueWorkItem(show->Item, LampShow, DelayedWorkQueue, show);
    return STATUS_SUCCESS;
}

static NTSTATUS LampStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PLAMP lamp = (PLAMP)Kit;

    UNREFERENCED_PARAMETER(Stack);
    if (!lamp->Pattern) {
        lamp->Pattern = ExAllocatePoolWithTag(NonPagedPoolNx, LAMPS, 'pmaL');
        if (!lamp->Pattern)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlZeroMemory(lamp->Pattern, LAMPS);
    }
    return STATUS_SUCCESS;
}

static VOID LampRelease(PKIT Kit, BOOLEAN Reachable)
{
    UNREFERENCED_PARAMETER(Kit);        /* the pattern outlives a stop */
    UNREFERENCED_PARAMETER(Reachable);
}

static const KIT_HOOKS KitHooks = { sizeof(LAMP), 0, 'pmaL', &LampGuid, NULL, LampStart, LampRelease, NULL, NULL, NULL, NULL };

/* Removal by its own: the pattern is freed when no one uses it any more. */
static NTSTATUS NTAPI LampPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLAMP lamp = DeviceObject->DeviceExtension;
    PDEVICE_OBJECT lower = lamp->Kit.Lower;
    NTSTATUS status;

    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction != IRP_MN_REMOVE_DEVICE)
        return KitPnp(DeviceObject, Irp);
    status = IoAcquireRemoveLock(&lamp->Kit.RemoveLock, lamp);
    if (!NT_SUCCESS(status))
        return KitRefuse(Irp, status);
    KitInterfaceOff(&lamp->Kit);
    KitShut(&lamp->Kit, KIT_GONE);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(lower, Irp);
    IoReleaseRemoveLockAndWait(&lamp->Kit.RemoveLock, lamp);
    if (lamp->Pattern)
        ExFreePoolWithTag(lamp->Pattern, 'pmaL');
    lamp->Pattern = NULL;
    RtlFreeUnicodeString(&lamp->Kit.Link);
    IoDetachDevice(lower);
    IoDeleteDevice(DeviceObject);
    return status;
}

static NTSTATUS NTAPI LampControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLAMP lamp = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status = IoAcquireRemoveLock(&lamp->Kit.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    status = KitEnter(&lamp->Kit);
    if (NT_SUCCESS(status)) {
        switch (stack->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_LAMP_PATTERN:
            if (stack->Parameters.DeviceIoControl.InputBufferLength != LAMPS)
                status = STATUS_INFO_LENGTH_MISMATCH;
            else
                RtlCopyMemory(lamp->Pattern, Irp->AssociatedIrp.SystemBuffer, LAMPS);
            break;
        case IOCTL_LAMP_SHOW:
            status = LampBegin(lamp);
            break;
        case IOCTL_LAMP_LIT:
            if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            *(PLONG)Irp->AssociatedIrp.SystemBuffer = lamp->Lit;
            information = sizeof(LONG);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
        KitLeave(&lamp->Kit);
    }
    KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&lamp->Kit.RemoveLock, Irp);
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_PNP] = LampPnp;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LampControl;
    return STATUS_SUCCESS;
}
