/*
 * cobalt: a broker for the eight slots of a hardware security module that several services share. Programs claim a slot, leave a cookie with
 * it, and list who has which. Programs of 32 bits have structures of their own.
 *
 * The bug: the list tells how many entries fit by the size of an entry in the calling program, but always stores entries of 64 bits:
 * a program of 32 bits gets half as many bytes again as its buffer has.
 *
 * Device: none
 * Rule: pool-overrun, wild-write, irp-bad-buffer
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

NTKERNELAPI HANDLE NTAPI PsGetCurrentProcessId(VOID);

#define COBALT_DEVICE L"\\Device\\CobaltSlots"
#define COBALT_LINK   L"\\DosDevices\\CobaltSlots"

#define IOCTL_COBALT_CLAIM   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA11, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COBALT_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA12, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COBALT_ONE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA13, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COBALT_LIST    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA14, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define COBALT_SLOTS 8

typedef struct SLOT_INFO {
    ULONG Slot;
    ULONG Claimed;
    ULONG_PTR Process;
    ULONG_PTR Cookie;
} SLOT_INFO;

typedef struct SLOT_INFO32 {
    ULONG Slot;
    ULONG Claimed;
    ULONG Process;
    ULONG Cookie;
} SLOT_INFO32;

typedef struct SLOT {
    PFILE_OBJECT Owner;
    SLOT_INFO Info;
} SLOT;

static KIOSK Kiosk;
static FAST_MUTEX Mutex;
static SLOT Slots[COBALT_SLOTS];

static ULONG CobaltUnit(PIRP irp)
{
    return IoIs32bitProcess(irp) ? sizeof(SLOT_INFO32) : sizeof(SLOT_INFO);
}

/* Stores an entry as the program has it. */
static VOID CobaltStore(PIRP irp, PVOID to, const SLOT_INFO *info)
{
    if (IoIs32bitProcess(irp)) {
        SLOT_INFO32 *narrow = to;

        narrow->Slot = info->Slot;
        narrow->Claimed = info->Claimed;
        narrow->Process = (ULONG)info->Process;
        narrow->Cookie = (ULONG)info->Cookie;
    } else {
        *(SLOT_INFO *)to = *info;
    }
}

/* With the mutex. */
static VOID CobaltFree(SLOT *s)
{
    s->Owner = NULL;
    s->Info.Claimed = 0;
    s->Info.Process = 0;
    s->Info.Cookie = 0;
}

static NTSTATUS CobaltClaim(PFILE_OBJECT file, ULONG n, ULONG_PTR cookie)
{
    NTSTATUS st = STATUS_SUCCESS;
    SLOT *s = &Slots[n];

    ExAcquireFastMutex(&Mutex);
    if (s->Owner != NULL && s->Owner != file) {
        st = STATUS_DEVICE_BUSY;
    } else {
        s->Owner = file;
        s->Info.Claimed = 1;
        s->Info.Process = (ULONG_PTR)PsGetCurrentProcessId();
        s->Info.Cookie = cookie;
    }
    ExReleaseFastMutex(&Mutex);
    return st;
}

static NTSTATUS CobaltRelease(PFILE_OBJECT file, ULONG n)
{
    NTSTATUS st = STATUS_ACCESS_DENIED;

    ExAcquireFastMutex(&Mutex);
    if (Slots[n].Owner == file) {
        CobaltFree(&Slots[n]);
        st = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Mutex);
    return st;
}

static ULONG CobaltList(PIRP irp, PUCHAR to, ULONG room)
{
    ULONG n = room / CobaltUnit(irp), i;

    if (n > COBALT_SLOTS)
        n = COBALT_SLOTS;
    ExAcquireFastMutex(&Mutex);
    for (i = 0; i < n; i++) {
#ifndef FIXED
        *(SLOT_INFO *)(to + i * sizeof(SLOT_INFO)) = Slots[i].Info;
#else
        CobaltStore(irp, to + i * CobaltUnit(irp), &Slots[i].Info);
#endif
    }
    ExReleaseFastMutex(&Mutex);
    return n * CobaltUnit(irp);
}

static NTSTATUS NTAPI CobaltControl(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION sp = IrpHere(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG unit = CobaltUnit(irp), n = 0;
    ULONG_PTR cookie;
    SLOT_INFO info;

    UNREFERENCED_PARAMETER(device);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_COBALT_LIST) {
        if (in < sizeof(ULONG) || buffer == NULL || (n = *(PULONG)buffer) >= COBALT_SLOTS)
            return KioskEnd(irp, STATUS_INVALID_PARAMETER, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_COBALT_CLAIM:
        if (in < unit)
            return KioskEnd(irp, STATUS_INVALID_PARAMETER, 0);
        cookie = IoIs32bitProcess(irp) ? ((SLOT_INFO32 *)buffer)->Cookie : ((SLOT_INFO *)buffer)->Cookie;
        return KioskEnd(irp, CobaltClaim(sp->FileObject, n, cookie), 0);
    case IOCTL_COBALT_RELEASE:
        return KioskEnd(irp, CobaltRelease(sp->FileObject, n), 0);
    case IOCTL_COBALT_ONE:
        if (out < unit)
            return KioskEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&Mutex);
        info = Slots[n].Info;
        ExReleaseFastMutex(&Mutex);
        CobaltStore(irp, buffer, &info);
        return KioskEnd(irp, STATUS_SUCCESS, unit);
    case IOCTL_COBALT_LIST:
        if (out < unit)
            return KioskEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return KioskEnd(irp, STATUS_SUCCESS, CobaltList(irp, buffer, out));
    default:
        return KioskEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI CobaltHandle(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return KioskEnd(irp, STATUS_SUCCESS, 0);
}

/* Behind the last request of the handle: what it still claims is free. */
static NTSTATUS NTAPI CobaltClose(PDEVICE_OBJECT device, PIRP irp)
{
    PFILE_OBJECT file = IrpHere(irp)->FileObject;
    ULONG i;

    UNREFERENCED_PARAMETER(device);
    ExAcquireFastMutex(&Mutex);
    for (i = 0; i < COBALT_SLOTS; i++) {
        if (Slots[i].Owner == file)
            CobaltFree(&Slots[i]);
    }
    ExReleaseFastMutex(&Mutex);
    return KioskEnd(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI CobaltUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    KioskRaze(&Kiosk, TRUE);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS st;
    ULONG i;

    UNREFERENCED_PARAMETER(path);
    ExInitializeFastMutex(&Mutex);
    for (i = 0; i < COBALT_SLOTS; i++)
        Slots[i].Info.Slot = i;
    st = KioskBuild(&Kiosk, driver, COBALT_DEVICE, COBALT_LINK, 0, DO_BUFFERED_IO);
    if (!NT_SUCCESS(st))
        return st;
    driver->MajorFunction[IRP_MJ_CREATE] = CobaltHandle;
    driver->MajorFunction[IRP_MJ_CLEANUP] = CobaltHandle;
    driver->MajorFunction[IRP_MJ_CLOSE] = CobaltClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CobaltControl;
    driver->DriverUnload = CobaltUnload;
    st = KioskUnlock(&Kiosk, COBALT_DEVICE);
    if (!NT_SUCCESS(st))
        KioskRaze(&Kiosk, FALSE);
    return st;
}
