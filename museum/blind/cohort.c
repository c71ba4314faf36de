/*
 * cohort: groups of measurements for a statistics service. A program forms a group and gets its number, several threads add values to groups and
 * ask for their figures, and a group is dissolved when it is done with, or when the handle is closed through which it was formed.
 *
 * The bug: a group that is looked up by its number is used after the table's lock has been released, and nothing keeps it: another thread may dissolve
 * and free it meanwhile.
 *
 * Device: none
 * Rule: use-after-free, write-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/hall_desk.h"

#define GROUP_TAG 'prGC'
#define GROUPS 32
#define NAME L"\\Device\\Cohort"
#define LINK L"\\DosDevices\\Cohort"

#define IOCTL_COHORT_FORM     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COHORT_ADD      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COHORT_FIGURES  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COHORT_DISSOLVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _VALUES {
    ULONG Group;
    LONG Value[ANYSIZE_ARRAY];
} VALUES;

#define VALUES_HEAD FIELD_OFFSET(VALUES, Value)

typedef struct _FIGURES {
    ULONGLONG Count;
    LONGLONG Sum;
    LONG Least, Most;
} FIGURES;

typedef struct _GROUP {
    LONG References;            /* one of them the table's; interlocked */
    PFILE_OBJECT Owner;         /* for comparison only */
    FAST_MUTEX Lock;            /* of Figures */
    FIGURES Figures;
} GROUP;

typedef struct _COHORT {
    FAST_MUTEX Lock;            /* of the table */
    GROUP *Group[GROUPS];
} COHORT;

static PDEVICE_OBJECT TheCohort;

static VOID Drop(GROUP *Group)
{
    if (!InterlockedDecrement(&Group->References))
        ExFreePoolWithTag(Group, GROUP_TAG);
}

static GROUP *LookUp(COHORT *Cohort, ULONG Number)
{
    GROUP *Group = NULL;

    ExAcquireFastMutex(&Cohort->Lock);
    if (Number < GROUPS)
        Group = Cohort->Group[Number];
#ifdef FIXED
    if (Group)
        InterlockedIncrement(&Group->References);
#endif
    ExReleaseFastMutex(&Cohort->Lock);
    return Group;
}

static VOID PutBack(GROUP *Group)
{
#ifdef FIXED
    Drop(Group);
#else
    UNREFERENCED_PARAMETER(Group);
#endif
}

static NTSTATUS Form(COHORT *Cohort, PFILE_OBJECT Owner, PULONG Number)
{
    GROUP *Group = ExAllocatePoolWithTag(NonPagedPool, sizeof(GROUP), GROUP_TAG);
    ULONG i;

    if (!Group)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(Group, sizeof(GROUP));
    Group->References = 1;
    Group->Owner = Owner;
    ExInitializeFastMutex(&Group->Lock);
    ExAcquireFastMutex(&Cohort->Lock);
    for (i = 0; i < GROUPS && Cohort->Group[i]; i++)
        ;
    if (i < GROUPS)
        Cohort->Group[i] = Group;
    ExReleaseFastMutex(&Cohort->Lock);
    if (i == GROUPS) {
        Drop(Group);
        return STATUS_TOO_MANY_OPENED_FILES;
    }
    *Number = i;
    return STATUS_SUCCESS;
}

static NTSTATUS Dissolve(COHORT *Cohort, ULONG Number)
{
    GROUP *Group = NULL;

    ExAcquireFastMutex(&Cohort->Lock);
    if (Number < GROUPS) {
        Group = Cohort->Group[Number];
        Cohort->Group[Number] = NULL;
    }
    ExReleaseFastMutex(&Cohort->Lock);
    if (!Group)
        return STATUS_NOT_FOUND;
    Drop(Group);
    return STATUS_SUCCESS;
}

/* Dissolves all that were formed through Owner, or all. */
static VOID DissolveOf(COHORT *Cohort, PFILE_OBJECT Owner)
{
    GROUP *Group;
    ULONG i;

    for (i = 0; i < GROUPS; i++) {
        ExAcquireFastMutex(&Cohort->Lock);
        Group = Cohort->Group[i];
        if (Group && Owner && Group->Owner != Owner)
            Group = NULL;
        if (Group)
            Cohort->Group[i] = NULL;
        ExReleaseFastMutex(&Cohort->Lock);
        if (Group)
            Drop(Group);
    }
}

static NTSTATUS Add(COHORT *Cohort, const VALUES *Values, ULONG Count)
{
    GROUP *Group = LookUp(Cohort, Values->Group);
    ULONG i;

    if (!Group)
        return STATUS_NOT_FOUND;
    ExAcquireFastMutex(&Group->Lock);
    for (i = 0; i < Count; i++) {
        LONG Value = Values->Value[i];

        if (!Group->Figures.Count || Value < Group->Figures.Least)
            Group->Figures.Least = Value;
        if (!Group->Figures.Count || Value > Group->Figures.Most)
            Group->Figures.Most = Value;
        Group->Figures.Sum += Value;
        Group->Figures.Count++;
    }
    ExReleaseFastMutex(&Group->Lock);
    PutBack(Group);
    return STATUS_SUCCESS;
}

static NTSTATUS Figures(COHORT *Cohort, ULONG Number, FIGURES *Figures)
{
    GROUP *Group = LookUp(Cohort, Number);

    if (!Group)
        return STATUS_NOT_FOUND;
    ExAcquireFastMutex(&Group->Lock);
    *Figures = Group->Figures;
    ExReleaseFastMutex(&Group->Lock);
    PutBack(Group);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI CohortControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    COHORT *Cohort = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = STATUS_INVALID_PARAMETER;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_COHORT_FORM:
        if (Out < sizeof(ULONG))
            break;
        Status = Form(Cohort, Sp->FileObject, Data);
        if (NT_SUCCESS(Status))
            Information = sizeof(ULONG);
        break;
    case IOCTL_COHORT_ADD:
        if (In < VALUES_HEAD + sizeof(LONG) || (In - VALUES_HEAD) % sizeof(LONG))
            break;
        Status = Add(Cohort, Data, (In - VALUES_HEAD) / sizeof(LONG));
        break;
    case IOCTL_COHORT_FIGURES:
        if (In != sizeof(ULONG) || Out < sizeof(FIGURES))
            break;
        Status = Figures(Cohort, *(PULONG)Data, Data);
        if (NT_SUCCESS(Status))
            Information = sizeof(FIGURES);
        break;
    case IOCTL_COHORT_DISSOLVE:
        if (In != sizeof(ULONG))
            break;
        Status = Dissolve(Cohort, *(PULONG)Data);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(NULL, Irp, Status, Information);
}

static NTSTATUS NTAPI CohortCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DissolveOf(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return Finish(NULL, Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI CohortUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DissolveOf(TheCohort->DeviceExtension, NULL);
    DeskDrop(TheCohort, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Status = DeskMake(Driver, sizeof(COHORT), NAME, LINK, &TheCohort);
    if (!NT_SUCCESS(Status))
        return Status;
    ExInitializeFastMutex(&((COHORT *)TheCohort->DeviceExtension)->Lock);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = CohortCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CohortControl;
    Driver->DriverUnload = CohortUnload;
    return STATUS_SUCCESS;
}
