/*
 * A driver for QEMU's edu card that has it compute factorials, one at a time, without its interrupt.
 *
 * The bug: the loop that waits for the end of a computation has no limit and takes all ones for "busy", so that a request never ends once the card does not answer.
 * Shows by: the card is pulled out, or stays busy, while or just before a computation is waited for.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed
 * Needs: ioctl, removal, device
 */
#include "../include/hold_card.h"

#define EDU_TAG 'sudE'
#define EDU_ID        0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS    0x20
#define EDU_BUSY      0x01u
#define EDU_BYTES     0x100u
#define EDU_MOST      12u                       /* 13! does not fit */
#define EDU_TRIES     20u                       /* of 1 ms or a tick of the clock, which is longer */

#define IOCTL_EDU_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG, out: ULONG */

typedef struct _EDU {
    KIT Kit;
    PUCHAR Registers;
    FAST_MUTEX Mutex;                           /* one computation at a time */
} EDU, *PEDU;

DRIVER_INITIALIZE DriverEntry;

static const GUID EduInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x11 } };

static ULONG EduRead(PEDU Edu, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Edu->Registers + Offset));
}

static void EduWrite(PEDU Edu, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Edu->Registers + Offset), Value);
}

/* Mutex held. */
static NTSTATUS EduWait(PEDU Edu)
{
    LARGE_INTEGER pause;
#ifdef FIXED
    ULONG tries, status;
#endif

    pause.QuadPart = -10000;
    KeStallExecutionProcessor(2);               /* mostly enough */
#ifdef FIXED
    for (tries = 0; tries < EDU_TRIES; tries++) {
        status = EduRead(Edu, EDU_STATUS);
        if (status == 0xffffffff)
            return STATUS_DEVICE_DOES_NOT_EXIST;
        if (!(status & EDU_BUSY))
            return STATUS_SUCCESS;
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    return STATUS_IO_TIMEOUT;
#else
    while (EduRead(Edu, EDU_STATUS) & EDU_BUSY)
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    return STATUS_SUCCESS;
#endif
}

static NTSTATUS EduFactorial(PEDU Edu, ULONG N, PULONG Result)
{
    NTSTATUS status;

    if (N > EDU_MOST)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&Edu->Mutex);
    status = EduWait(Edu);                      /* one that has timed out may still be at work */
    if (NT_SUCCESS(status)) {
        EduWrite(Edu, EDU_FACTORIAL, N);
        status = EduWait(Edu);
        if (NT_SUCCESS(status))
            *Result = EduRead(Edu, EDU_FACTORIAL);
    }
    ExReleaseFastMutex(&Edu->Mutex);
    return status;
}

static NTSTATUS NTAPI EduControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEDU edu = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = KitEnter(&edu->Kit, Irp);
    ULONG result;

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_EDU_FACTORIAL)
        return KitFinish(&edu->Kit, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return KitFinish(&edu->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    status = EduFactorial(edu, *(PULONG)Irp->AssociatedIrp.SystemBuffer, &result);
    if (!NT_SUCCESS(status))
        return KitFinish(&edu->Kit, Irp, status, 0);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = result;
    return KitFinish(&edu->Kit, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    PEDU edu = CONTAINING_RECORD(Kit, EDU, Kit);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR window = HwWindow(Translated, 0, EDU_BYTES);

    if (window == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    edu->Registers = MmMapIoSpace(window->u.Memory.Start, EDU_BYTES, MmNonCached);
    if (edu->Registers == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((EduRead(edu, EDU_ID) & 0xffff) != 0x00ed) {
        MmUnmapIoSpace(edu->Registers, EDU_BYTES);
        edu->Registers = NULL;
        return STATUS_NO_SUCH_DEVICE;
    }
    return STATUS_SUCCESS;
}

static void KitStop(PKIT Kit)
{
    PEDU edu = CONTAINING_RECORD(Kit, EDU, Kit);

    MmUnmapIoSpace(edu->Registers, EDU_BYTES);
    edu->Registers = NULL;
}

static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitSuspend(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitResume(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);                /* it keeps nothing from one computation to the next */
}

static NTSTATUS NTAPI EduAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(EDU), EDU_TAG, &EduInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    ExInitializeFastMutex(&((PEDU)device->DeviceExtension)->Mutex);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI EduUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, EduAddDevice, EduUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EduControl;
    return STATUS_SUCCESS;
}
