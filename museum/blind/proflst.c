/*
 * proflst: keeps up to 64 named profiles for a settings program: add, remove by name, list.
 *
 * The bug: when the buffer of LIST is too small for all profiles, the request ends with STATUS_BUFFER_OVERFLOW and an Information for all of them
 * instead of those that were copied; the I/O manager copies that many bytes, and memory behind the system buffer goes to the program.
 *
 * Device: ROOT\PROFLST
 * Rule: information-too-large
 * Needs: ioctl
 */
#include "../include/served_by_ticks.h"

#define PROFILES 64
#define NAME 16

#define IOCTL_PROFILE_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PROFILE_REMOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PROFILE_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PROFILE_FIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x923, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID ProfileInterface = { 0x6d1d0a53, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x03 } };

typedef struct _PROFILE {
    WCHAR Name[NAME]; /* padded with zeros */
    ULONG Red, Green, Blue;
    ULONG Number; /* given by the driver */
} PROFILE, *PPROFILE;

typedef struct _PROFILE_LIST {
    ULONG Total;
    ULONG Returned;
    /* PROFILE follows */
} PROFILE_LIST, *PPROFILE_LIST;

typedef struct _DEV {
    BF B;
    FAST_MUTEX Mutex; /* the following */
    PROFILE Profiles[PROFILES];
    ULONG Total;
    ULONG NextNumber;
} DEV, *PDEV;

static BOOLEAN SameName(const WCHAR *a, const WCHAR *b)
{
    ULONG i;

    for (i = 0; i < NAME; i++) {
        if (a[i] != b[i])
            return FALSE;
        if (!a[i])
            return TRUE;
    }
    return TRUE;
}

/* Under Mutex; Total if there is none. */
static ULONG Find(PDEV d, const WCHAR *name)
{
    ULONG i;

    for (i = 0; i < d->Total; i++) {
        if (SameName(d->Profiles[i].Name, name))
            break;
    }
    return i;
}

static NTSTATUS AddProfile(PDEV d, const PROFILE *in)
{
    PPROFILE p;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG i;

    if (!in->Name[0])
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&d->Mutex);
    if (Find(d, in->Name) < d->Total) {
        st = STATUS_OBJECT_NAME_COLLISION;
    } else if (d->Total == PROFILES) {
        st = STATUS_QUOTA_EXCEEDED;
    } else {
        p = &d->Profiles[d->Total++];
        RtlZeroMemory(p, sizeof(*p));
        for (i = 0; i < NAME && in->Name[i]; i++)
            p->Name[i] = in->Name[i];
        p->Red = in->Red;
        p->Green = in->Green;
        p->Blue = in->Blue;
        p->Number = ++d->NextNumber;
    }
    ExReleaseFastMutex(&d->Mutex);
    return st;
}

static NTSTATUS RemoveProfile(PDEV d, const WCHAR *name)
{
    NTSTATUS st = STATUS_NOT_FOUND;
    ULONG i;

    ExAcquireFastMutex(&d->Mutex);
    i = Find(d, name);
    if (i < d->Total) {
        d->Total--;
        for (; i < d->Total; i++)
            d->Profiles[i] = d->Profiles[i + 1];
        st = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&d->Mutex);
    return st;
}

static NTSTATUS FindProfile(PDEV d, PVOID buffer, ULONG_PTR *information)
{
    NTSTATUS st = STATUS_NOT_FOUND;
    ULONG i;

    ExAcquireFastMutex(&d->Mutex);
    i = Find(d, buffer);
    if (i < d->Total) {
        RtlCopyMemory(buffer, &d->Profiles[i], sizeof(PROFILE));
        *information = sizeof(PROFILE);
        st = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&d->Mutex);
    return st;
}

static NTSTATUS ListProfiles(PDEV d, PVOID buffer, ULONG length, ULONG_PTR *information)
{
    PPROFILE_LIST list = buffer;
    ULONG room, total, n;

    if (length < sizeof(*list))
        return STATUS_BUFFER_TOO_SMALL;
    room = (length - sizeof(*list)) / sizeof(PROFILE);
    ExAcquireFastMutex(&d->Mutex);
    total = d->Total;
    n = total < room ? total : room;
    list->Total = total;
    list->Returned = n;
    RtlCopyMemory(list + 1, d->Profiles, n * sizeof(PROFILE));
    ExReleaseFastMutex(&d->Mutex);
#ifdef FIXED
    *information = sizeof(*list) + n * sizeof(PROFILE);
#else
    *information = sizeof(*list) + total * sizeof(PROFILE);
#endif
    return n < total ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PROFILE_ADD:
        if (in < sizeof(PROFILE))
            return STATUS_BUFFER_TOO_SMALL;
        return AddProfile(d, buffer);
    case IOCTL_PROFILE_REMOVE:
        if (in < NAME * sizeof(WCHAR))
            return STATUS_BUFFER_TOO_SMALL;
        return RemoveProfile(d, buffer);
    case IOCTL_PROFILE_FIND:
        if (in < NAME * sizeof(WCHAR) || out < sizeof(PROFILE))
            return STATUS_BUFFER_TOO_SMALL;
        return FindProfile(d, buffer, &irp->IoStatus.Information);
    case IOCTL_PROFILE_LIST:
        return ListProfiles(d, buffer, out, &irp->IoStatus.Information);
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS Add(PBF b)
{
    PDEV d = (PDEV)b;

    ExInitializeFastMutex(&d->Mutex);
    return STATUS_SUCCESS;
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &ProfileInterface,
    .Add = Add,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
