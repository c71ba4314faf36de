/*
 * zodiac: the kernel part of a software dongle. Licence containers are handed in as a stream of records (kind, length of the whole record, data);
 * the driver keeps up to sixteen of them and tells programs which features are licensed.
 *
 * The bug: a record of a kind that the driver does not know is skipped by its length without a look at whether that is at least the length of
 * the record's head: with a length of zero the driver skips nothing, for ever.
 *
 * Device: none
 * Rule: endless-loop, stuck, livelock
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define ZODIAC_DEVICE L"\\Device\\Zodiac"
#define ZODIAC_LINK   L"\\DosDevices\\Zodiac"

#define IOCTL_ZODIAC_IMPORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ZODIAC_ASK    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA02, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ZODIAC_LIST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA03, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ZODIAC_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA04, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define ZODIAC_MOST  16
#define ZODIAC_NAME  24

enum { KIND_SERIAL = 1, KIND_FEATURE, KIND_NAME };

typedef struct RECORD {
    UCHAR Kind;
    UCHAR Length;                            /* with these two */
    UCHAR Data[1];
} RECORD;

#define RECORD_HEAD 2

typedef struct LICENCE {
    ULONGLONG Serial;
    ULONG Feature;
    CHAR Name[ZODIAC_NAME];
    ULONG Reserved;
} LICENCE;

static KIOSK Kiosk;
static FAST_MUTEX Mutex;
static LICENCE Licences[ZODIAC_MOST];
static ULONG Count;

/* Reads one container into LICENCE. */
static NTSTATUS ZodiacParse(const UCHAR *p, ULONG length, LICENCE *licence)
{
    ULONG at = 0;

    RtlZeroMemory(licence, sizeof(*licence));
    while (length - at >= RECORD_HEAD) {
        const RECORD *r = (const RECORD *)(p + at);
        ULONG data;

        if (r->Length > length - at)
            return STATUS_INVALID_PARAMETER;
#ifdef FIXED
        if (r->Length < RECORD_HEAD)
            return STATUS_INVALID_PARAMETER;
#endif
        data = r->Length > RECORD_HEAD ? r->Length - RECORD_HEAD : 0;
        switch (r->Kind) {
        case KIND_SERIAL:
            if (data != sizeof(ULONGLONG))
                return STATUS_INVALID_PARAMETER;
            RtlCopyMemory(&licence->Serial, r->Data, sizeof(ULONGLONG));
            break;
        case KIND_FEATURE:
            if (data != sizeof(ULONG))
                return STATUS_INVALID_PARAMETER;
            RtlCopyMemory(&licence->Feature, r->Data, sizeof(ULONG));
            break;
        case KIND_NAME:
            if (data == 0 || data >= ZODIAC_NAME)
                return STATUS_INVALID_PARAMETER;
            RtlCopyMemory(licence->Name, r->Data, data);
            licence->Name[data] = 0;
            break;
        default:
            break;                           /* of a later version */
        }
        at += r->Length;
    }
    return licence->Serial != 0 && licence->Feature != 0 ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

static NTSTATUS ZodiacImport(const UCHAR *p, ULONG length)
{
    LICENCE licence;
    NTSTATUS st = ZodiacParse(p, length, &licence);
    ULONG i;

    if (!NT_SUCCESS(st))
        return st;
    ExAcquireFastMutex(&Mutex);
    for (i = 0; i < Count && Licences[i].Serial != licence.Serial; i++)
        ;
    if (i == ZODIAC_MOST) {
        st = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        Licences[i] = licence;
        if (i == Count)
            Count++;
    }
    ExReleaseFastMutex(&Mutex);
    return st;
}

static BOOLEAN ZodiacHas(ULONG feature)
{
    BOOLEAN has = FALSE;
    ULONG i;

    ExAcquireFastMutex(&Mutex);
    for (i = 0; i < Count; i++)
        has |= Licences[i].Feature == feature;
    ExReleaseFastMutex(&Mutex);
    return has;
}

static NTSTATUS NTAPI ZodiacControl(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION sp = IrpHere(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG n;

    UNREFERENCED_PARAMETER(device);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ZODIAC_IMPORT:
        if (in < RECORD_HEAD)
            return KioskEnd(irp, STATUS_INVALID_PARAMETER, 0);
        return KioskEnd(irp, ZodiacImport(buffer, in), 0);
    case IOCTL_ZODIAC_ASK:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return KioskEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)buffer = ZodiacHas(*(PULONG)buffer);
        return KioskEnd(irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_ZODIAC_LIST:
        ExAcquireFastMutex(&Mutex);
        n = out / sizeof(LICENCE);
        if (n > Count)
            n = Count;
        if (n != 0)
            RtlCopyMemory(buffer, Licences, n * sizeof(LICENCE));
        ExReleaseFastMutex(&Mutex);
        return KioskEnd(irp, STATUS_SUCCESS, n * sizeof(LICENCE));
    case IOCTL_ZODIAC_FORGET:
        ExAcquireFastMutex(&Mutex);
        RtlZeroMemory(Licences, sizeof(Licences));
        Count = 0;
        ExReleaseFastMutex(&Mutex);
        return KioskEnd(irp, STATUS_SUCCESS, 0);
    default:
        return KioskEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI ZodiacHandle(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return KioskEnd(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI ZodiacUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    KioskRaze(&Kiosk, TRUE);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS st;

    UNREFERENCED_PARAMETER(path);
    ExInitializeFastMutex(&Mutex);
    st = KioskBuild(&Kiosk, driver, ZODIAC_DEVICE, ZODIAC_LINK, 0, DO_BUFFERED_IO);
    if (!NT_SUCCESS(st))
        return st;
    driver->MajorFunction[IRP_MJ_CREATE] = ZodiacHandle;
    driver->MajorFunction[IRP_MJ_CLEANUP] = ZodiacHandle;
    driver->MajorFunction[IRP_MJ_CLOSE] = ZodiacHandle;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ZodiacControl;
    driver->DriverUnload = ZodiacUnload;
    st = KioskUnlock(&Kiosk, ZODIAC_DEVICE);
    if (!NT_SUCCESS(st))
        KioskRaze(&Kiosk, FALSE);
    return st;
}
