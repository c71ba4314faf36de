/*
 * sallow: an eight channel measuring card. ReadFile gives the samples collected (one ULONG each) and pends until there
 * are some; IOCTL_SALLOW_TRIM adjusts a channel, which takes the card some time and is done by a work item.
 *
 * The bug: when the work item cannot be allocated, the mark that a trim is under way stays set. Further trims are
 * refused as busy, and stop and remove wait without end for the trim that never began.
 *
 * Device: PCI\VEN_1DA7&DEV_5A11
 * Rule: deadlock
 * Needs: ioctl, failure, removal
 *
 * The card (BAR0 memory, 32 bits each; one shared level interrupt):
 *   0x00 ID      reads 0x5A110001
 *   0x04 CONTROL bit 0 measure, bit 1 interrupt enable
 *   0x08 CAUSE   bit 0: the FIFO has reached its mark; latched, write 1 to clear
 *   0x0C COUNT   samples in the FIFO, at most 64
 *   0x10 SAMPLE  takes the oldest one out: bits 0..15 value, 16..18 channel
 *   0x14 TRIM    write channel | 0x80: begins; reads bit 7 set until done, then bits 8..15 the setting found
 */
#include "../include/reed_wdm.h"

/* {9A7D4F60-3C15-4E8A-B7F2-5D0C8E1A6B05} */
static const GUID SallowGuid = { 0x9a7d4f60, 0x3c15, 0x4e8a, { 0xb7, 0xf2, 0x5d, 0x0c, 0x8e, 0x1a, 0x6b, 0x05 } };

#define IOCTL_SALLOW_TRIM   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SALLOW_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SALLOW_TRIM {
    ULONG Channel;                  /* in and out */
    ULONG Setting;                  /* out */
} SALLOW_TRIM;

typedef struct _SALLOW_COUNTS {
    ULONG Samples;
    ULONG Lost;
} SALLOW_COUNTS;

#define REG_ID        0x00
#define REG_CONTROL   0x04
#define REG_CAUSE     0x08
#define REG_COUNT     0x0C
#define REG_SAMPLE    0x10
#define REG_TRIM      0x14
#define REG_SIZE      0x18

#define ID_VALUE      0x5A110001u
#define CONTROL_RUN   0x03u
#define CAUSE_MARK    0x01u
#define TRIM_BUSY     0x80u
#define CARD_GONE     0xFFFFFFFFu
#define FIFO_SIZE     64u

#define SALLOW_RING   512u
#define TRIM_STEP_MS  10
#define TRIM_STEPS    50

typedef struct _SALLOW {
    REED R;
    LIST_ENTRY Readers;
    ULONG First, Count;             /* the ring */
    ULONG Samples, Lost;
    BOOLEAN Trimming;               /* one at a time */
    BOOLEAN Slept;                  /* since the trim began: its result is lost */
    KEVENT TrimIdle;                /* set while Trimming is not */
    ULONG Ring[SALLOW_RING];
} SALLOW, *PSALLOW;

typedef struct _SALLOW_JOB {
    PSALLOW Card;
    PIRP Irp;
    PIO_WORKITEM Item;
    ULONG Channel;
} SALLOW_JOB, *PSALLOW_JOB;

/* ---- samples ---- */

/* Lock held. As many samples as fit into a read request. */
static VOID SallowFill(PSALLOW s, PIRP Irp)
{
    ULONG *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(ULONG);
    ULONG n;

    for (n = 0; n < room && s->Count != 0; n++) {
        out[n] = s->Ring[s->First];
        s->First = (s->First + 1) % SALLOW_RING;
        s->Count--;
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = n * sizeof(ULONG);
}

static BOOLEAN NTAPI SallowIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PSALLOW s = Context;
    ULONG cause;

    (VOID)Interrupt;
    if (!s->R.Awake)
        return FALSE;
    cause = ReedGet(&s->R, 0, REG_CAUSE);
    if (cause == CARD_GONE || (cause & CAUSE_MARK) == 0)
        return FALSE;
    ReedSet(&s->R, 0, REG_CAUSE, CAUSE_MARK);
    KeInsertQueueDpc(&s->R.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI SallowDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PSALLOW s = Context;
    ULONG have, i;
    LIST_ENTRY done;
    KIRQL irql;
    PIRP irp;

    (VOID)Dpc;
    (VOID)A;
    (VOID)B;
    InitializeListHead(&done);
    KeAcquireSpinLock(&s->R.Lock, &irql);
    if (s->R.Live && s->R.Awake) {
        have = ReedGet(&s->R, 0, REG_COUNT);
        if (have > FIFO_SIZE)
            have = 0;               /* the card is gone */
        for (i = 0; i < have; i++) {
            ULONG sample = ReedGet(&s->R, 0, REG_SAMPLE);

            if (sample == CARD_GONE)
                break;
            if (s->Count == SALLOW_RING) {
                s->First = (s->First + 1) % SALLOW_RING;
                s->Count--;
                s->Lost++;
            }
            s->Ring[(s->First + s->Count) % SALLOW_RING] = sample & 0x7FFFFu;
            s->Count++;
            s->Samples++;
        }
        /* The mark is latched only when it is reached from below: do not leave while there is more. */
        have = ReedGet(&s->R, 0, REG_COUNT);
        if (have != 0 && have <= FIFO_SIZE)
            KeInsertQueueDpc(&s->R.Dpc, NULL, NULL);
        while (s->Count != 0 && (irp = ReedTake(&s->Readers)) != NULL) {
            SallowFill(s, irp);
            InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
        }
    }
    KeReleaseSpinLock(&s->R.Lock, irql);
    ReedEndEach(&s->R, &done);
}

static NTSTATUS NTAPI SallowRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSALLOW s = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = ReedEnter(&s->R, Irp);
    ULONG_PTR length = 0;
    KIRQL irql;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.Read.Length < sizeof(ULONG)) {
        ReedEnd(&s->R, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return ReedLeave(&s->R, STATUS_BUFFER_TOO_SMALL);
    }
    KeAcquireSpinLock(&s->R.Lock, &irql);
    if (!s->R.Live || sp->FileObject == NULL || sp->FileObject->FsContext2 != NULL) {
        st = STATUS_DEVICE_NOT_READY;
    } else if (s->Count != 0) {
        SallowFill(s, Irp);
        length = Irp->IoStatus.Information;
        st = STATUS_SUCCESS;
    } else {
        st = ReedPut(&s->Readers, Irp) ? STATUS_PENDING : STATUS_CANCELLED;
    }
    KeReleaseSpinLock(&s->R.Lock, irql);
    if (st != STATUS_PENDING)
        ReedEnd(&s->R, Irp, st, length);
    return ReedLeave(&s->R, st == STATUS_CANCELLED ? STATUS_PENDING : st);
}

/* ---- trimming ---- */

static VOID SallowTrimOver(PSALLOW s)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->R.Lock, &irql);
    s->Trimming = FALSE;
    KeSetEvent(&s->TrimIdle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&s->R.Lock, irql);
}

/* One look at the card; STATUS_PENDING: not done yet. */
static NTSTATUS SallowTrimStep(PSALLOW s, BOOLEAN Begin, ULONG Channel, ULONG *Setting)
{
    NTSTATUS st = STATUS_DEVICE_NOT_READY;
    ULONG trim;
    KIRQL irql;

    KeAcquireSpinLock(&s->R.Lock, &irql);
    if (s->R.Live && s->R.Awake) {
        trim = ReedGet(&s->R, 0, REG_TRIM);
        if (trim == CARD_GONE) {
            st = STATUS_DEVICE_NOT_CONNECTED;
        } else if (!Begin && s->Slept) {
            st = STATUS_DEVICE_NOT_READY;
        } else if ((trim & TRIM_BUSY) != 0) {
            st = Begin ? STATUS_DEVICE_BUSY : STATUS_PENDING;   /* Begin: late with an earlier one */
        } else if (Begin) {
            s->Slept = FALSE;
            ReedSet(&s->R, 0, REG_TRIM, Channel | TRIM_BUSY);
            st = STATUS_PENDING;
        } else {
            *Setting = (trim >> 8) & 0xFFu;
            st = STATUS_SUCCESS;
        }
    }
    KeReleaseSpinLock(&s->R.Lock, irql);
    return st;
}

static VOID NTAPI SallowWork(PDEVICE_OBJECT Device, PVOID Context)
{
    PSALLOW_JOB job = Context;
    PSALLOW s = job->Card;
    PIRP irp = job->Irp;
    ULONG setting = 0, i;
    LARGE_INTEGER step;
    NTSTATUS st;

    (VOID)Device;
    step.QuadPart = -TRIM_STEP_MS * 10000LL;
    st = SallowTrimStep(s, TRUE, job->Channel, &setting);
    for (i = 0; st == STATUS_PENDING && i < TRIM_STEPS; i++) {
        KeDelayExecutionThread(KernelMode, FALSE, &step);
        st = SallowTrimStep(s, FALSE, job->Channel, &setting);
    }
    if (st == STATUS_PENDING)
        st = STATUS_IO_TIMEOUT;
    if (NT_SUCCESS(st)) {
        SALLOW_TRIM *out = irp->AssociatedIrp.SystemBuffer;

        out->Channel = job->Channel;
        out->Setting = setting;
    }
    IoFreeWorkItem(job->Item);
    ExFreePoolWithTag(job, REED_TAG);
    SallowTrimOver(s);
    ReedEnd(&s->R, irp, st, NT_SUCCESS(st) ? sizeof(SALLOW_TRIM) : 0);
}

/* Not cancellable: it is over within half a second. */
static NTSTATUS SallowTrim(PSALLOW s, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    SALLOW_TRIM *in = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    PSALLOW_JOB job;
    KIRQL irql;

    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(*in) ||
        Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*in))
        return STATUS_BUFFER_TOO_SMALL;
    if (in->Channel > 7)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&s->R.Lock, &irql);
    if (!s->R.Live) {
        st = STATUS_DEVICE_NOT_READY;
    } else if (s->Trimming) {
        st = STATUS_DEVICE_BUSY;
    } else {
        s->Trimming = TRUE;
        KeClearEvent(&s->TrimIdle);
    }
    KeReleaseSpinLock(&s->R.Lock, irql);
    if (!NT_SUCCESS(st))
        return st;

    job = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*job), REED_TAG);
    if (job == NULL) {
        SallowTrimOver(s);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    job->Card = s;
    job->Irp = Irp;
    job->Channel = in->Channel;
    job->Item = IoAllocateWorkItem(s->R.Self);
    if (job->Item == NULL) {
        ExFreePoolWithTag(job, REED_TAG);
#ifdef FIXED
        SallowTrimOver(s);
#endif
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoMarkIrpPending(Irp);
    IoQueueWorkItem(job->Item, SallowWork, DelayedWorkQueue, job);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI SallowControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSALLOW s = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = ReedEnter(&s->R, Irp);
    ULONG_PTR length = 0;
    KIRQL irql;

    if (!NT_SUCCESS(st))
        return st;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SALLOW_TRIM:
        st = SallowTrim(s, Irp, sp);
        break;
    case IOCTL_SALLOW_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SALLOW_COUNTS)) {
            st = STATUS_BUFFER_TOO_SMALL;
        } else {
            SALLOW_COUNTS *out = Irp->AssociatedIrp.SystemBuffer;

            KeAcquireSpinLock(&s->R.Lock, &irql);
            out->Samples = s->Samples;
            out->Lost = s->Lost;
            KeReleaseSpinLock(&s->R.Lock, irql);
            length = sizeof(*out);
        }
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    if (st != STATUS_PENDING)
        ReedEnd(&s->R, Irp, st, length);
    return ReedLeave(&s->R, st);
}

static NTSTATUS NTAPI SallowCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSALLOW s = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&s->R.Lock, &irql);
    file->FsContext2 = s;           /* closed: takes no more reads */
    ReedSift(&s->Readers, file, &done);
    KeReleaseSpinLock(&s->R.Lock, irql);
    ReedEndAll(&s->R, &done, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

/* ---- the card's life ---- */

static VOID SallowSetup(PREED x)
{
    PSALLOW s = (PSALLOW)x;

    InitializeListHead(&s->Readers);
    KeInitializeEvent(&s->TrimIdle, NotificationEvent, TRUE);
    KeInitializeDpc(&x->Dpc, SallowDpc, s);
}

static VOID SallowCardOff(PSALLOW s)
{
    ReedSet(&s->R, 0, REG_CONTROL, 0);
    (VOID)ReedGet(&s->R, 0, REG_CONTROL);
}

/* Lock held, Awake is set. The DPC fetches what is in the FIFO already. */
static VOID SallowCardOn(PSALLOW s)
{
    ReedSet(&s->R, 0, REG_CONTROL, CONTROL_RUN);
    KeInsertQueueDpc(&s->R.Dpc, NULL, NULL);
}

static NTSTATUS SallowStart(PREED x, PCM_RESOURCE_LIST Resources)
{
    static const ULONG need[1] = { REG_SIZE };
    PSALLOW s = (PSALLOW)x;
    NTSTATUS st;
    KIRQL irql;

    st = ReedMap(x, Resources, need, 1);
    if (!NT_SUCCESS(st))
        return st;
    if (ReedGet(x, 0, REG_ID) != ID_VALUE)
        return STATUS_NO_SUCH_DEVICE;
    SallowCardOff(s);
    st = ReedConnect(x, SallowIsr);
    if (!NT_SUCCESS(st))
        return st;
    KeAcquireSpinLock(&x->Lock, &irql);
    s->First = 0;
    s->Count = 0;
    x->Live = TRUE;
    x->Awake = 1;
    SallowCardOn(s);
    KeReleaseSpinLock(&x->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID SallowStop(PREED x)
{
    PSALLOW s = (PSALLOW)x;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && x->Awake)
        SallowCardOff(s);
    x->Live = FALSE;
    ReedSift(&s->Readers, NULL, &done);
    KeReleaseSpinLock(&x->Lock, irql);
    ReedEndAll(x, &done, STATUS_DEVICE_NOT_READY);
    /* A trim sees that the card is not live any more and ends at its next look. */
    KeWaitForSingleObject(&s->TrimIdle, Executive, KernelMode, FALSE, NULL);
    ReedRelease(x);
}

/* Reads go on waiting; a trim under way is given up. */
static VOID SallowSleep(PREED x)
{
    PSALLOW s = (PSALLOW)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && x->Awake) {
        SallowCardOff(s);
        s->Slept = TRUE;
        x->Awake = 0;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    ReedFence(x);
}

static VOID SallowWake(PREED x)
{
    PSALLOW s = (PSALLOW)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && !x->Awake) {
        x->Awake = 1;
        SallowCardOn(s);
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static const REED_OPS SallowOps = {
    sizeof(SALLOW), &SallowGuid, SallowSetup, SallowStart, SallowStop, SallowSleep, SallowWake
};

static NTSTATUS NTAPI SallowAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ReedAdd(Driver, Pdo, &SallowOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (VOID)Path;
    ReedDriver(Driver, SallowAdd);
    Driver->MajorFunction[IRP_MJ_READ] = SallowRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SallowControl;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SallowCleanup;
    return STATUS_SUCCESS;
}
