/*
 * pacsbox: the in-memory index of a radiology department's image archive: modalities' programs note studies (accession number, modality, number of images),
 * viewers list them and take them out when they have been read. A software device that is installed as Root\PACSBOX.
 *
 * The bug: a list that does not fit is answered with STATUS_BUFFER_OVERFLOW, and with the number of bytes that all studies would need as
 * IoStatus.Information: more than the caller's buffer has, as many as the I/O manager then copies to the caller.
 *
 * Device: Root\PACSBOX
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define TAG 'xobP'
#define STUDIES_MOST 512

#define IOCTL_PACS_NOTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PACS_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PACS_DONE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID PacsInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x03 } };

struct study {
    CHAR accession[16];
    CHAR modality[4];           /* CT, MR, US ... */
    ULONG images;
};

struct study_list {
    ULONG total;                /* how many there are */
    ULONG given;                /* how many follow */
    struct study studies[1];
};

struct entry {
    LIST_ENTRY link;
    struct study study;
};

struct pacs {
    struct fdev f;
    FAST_MUTEX mutex;
    LIST_ENTRY studies;
    ULONG count;
};

static struct entry *pacs_find(struct pacs *p, const CHAR *accession)
{
    PLIST_ENTRY l;

    for (l = p->studies.Flink; l != &p->studies; l = l->Flink) {
        struct entry *e = CONTAINING_RECORD(l, struct entry, link);

        if (RtlCompareMemory(e->study.accession, accession, sizeof(e->study.accession)) == sizeof(e->study.accession))
            return e;
    }
    return NULL;
}

static NTSTATUS pacs_note(struct pacs *p, const struct study *s)
{
    struct entry *e = pacs_find(p, s->accession);

    if (!s->images || !s->accession[0])
        return STATUS_INVALID_PARAMETER;
    if (!e) {
        if (p->count == STUDIES_MOST)
            return STATUS_QUOTA_EXCEEDED;
        e = ExAllocatePoolWithTag(PagedPool, sizeof(*e), TAG);
        if (!e)
            return STATUS_INSUFFICIENT_RESOURCES;
        InsertTailList(&p->studies, &e->link);
        p->count++;
    }
    e->study = *s;
    return STATUS_SUCCESS;
}

static NTSTATUS pacs_list(struct pacs *p, struct study_list *out, ULONG room, ULONG_PTR *info)
{
    ULONG head = FIELD_OFFSET(struct study_list, studies), fit;
    PLIST_ENTRY l;

    if (room < head)
        return STATUS_BUFFER_TOO_SMALL;
    fit = (room - head) / sizeof(struct study);
    out->total = p->count;
    out->given = 0;
    for (l = p->studies.Flink; l != &p->studies && out->given < fit; l = l->Flink)
        out->studies[out->given++] = CONTAINING_RECORD(l, struct entry, link)->study;
    *info = head + out->given * sizeof(struct study);
    if (out->given < p->count) {
#ifndef FIXED
        *info = head + p->count * sizeof(struct study);     /* so many would be needed */
#endif
        return STATUS_BUFFER_OVERFLOW;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS pacs_done(struct pacs *p, const CHAR *accession)
{
    struct entry *e = pacs_find(p, accession);

    if (!e)
        return STATUS_NOT_FOUND;
    RemoveEntryList(&e->link);
    p->count--;
    ExFreePoolWithTag(e, TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS pacs_request(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct pacs *p = (struct pacs *)f;
    PVOID buf = irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS st = STATUS_INVALID_DEVICE_REQUEST;
    ULONG_PTR info = 0;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(irp, st, 0);
    ExAcquireFastMutex(&p->mutex);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PACS_NOTE:
        st = in < sizeof(struct study) ? STATUS_BUFFER_TOO_SMALL : pacs_note(p, buf);
        break;
    case IOCTL_PACS_LIST:
        st = pacs_list(p, buf, sp->Parameters.DeviceIoControl.OutputBufferLength, &info);
        break;
    case IOCTL_PACS_DONE:
        st = in < sizeof(((struct study *)0)->accession) ? STATUS_BUFFER_TOO_SMALL : pacs_done(p, buf);
        break;
    }
    ExReleaseFastMutex(&p->mutex);
    return irp_end(irp, st, info);
}

static NTSTATUS pacs_add(struct fdev *f)
{
    struct pacs *p = (struct pacs *)f;

    ExInitializeFastMutex(&p->mutex);
    InitializeListHead(&p->studies);
    return STATUS_SUCCESS;
}

static void pacs_drop(struct fdev *f)
{
    struct pacs *p = (struct pacs *)f;

    while (!IsListEmpty(&p->studies))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&p->studies), struct entry, link), TAG);
}

static NTSTATUS pacs_start(struct fdev *f, PCM_RESOURCE_LIST list)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(list);
    return STATUS_SUCCESS;
}

static void pacs_quiet(struct fdev *f, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(touch);
}

static void pacs_idle(struct fdev *f)
{
    UNREFERENCED_PARAMETER(f);
}

static const struct fops pacs_ops = {
    .iface = &PacsInterface, .bytes = sizeof(struct pacs), .flags = DO_BUFFERED_IO,
    .add = pacs_add, .drop = pacs_drop, .start = pacs_start, .quiet = pacs_quiet, .sleep = pacs_idle, .wake = pacs_idle,
    .request = pacs_request,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return fd_entry(drv, &pacs_ops);
}
