/*
 * dualbank: credit counters shared by the programs of a machine: sixteen accounts, each with a short journal; IOCTL_BANK_MOVE moves credit from one
 * account to another.
 *
 * The bug: a move takes the mutex of the account it takes from and then that of the account it gives to: a move from A to B and one from B to A at
 * the same time wait for each other for ever (and the removal of the device for both).
 *
 * Device: ROOT\EEDUALBANK
 * Rule: lock-order-inversion
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define EE_PNP
#include "../include/framed_by_calls.h"

#define IOCTL_BANK_MOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BANK_MINT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BANK_SHOW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define ACCOUNTS 16
#define JOURNAL 8

static const GUID BankGuid = { 0x7b1c0e55, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x05 } };

typedef struct _MOVE {              /* IOCTL_BANK_MOVE; IOCTL_BANK_MINT uses To and Amount */
    ULONG From, To;
    ULONGLONG Amount;
} MOVE;

typedef struct _LINE {
    LONGLONG Time;
    LONGLONG Change;
    ULONGLONG Number;
    ULONG Other, Reserved;
} LINE;

typedef struct _SHOW {              /* IOCTL_BANK_SHOW: in a ULONG of account */
    ULONGLONG Balance;
    ULONG Account, Lines;
    LINE Journal[JOURNAL];
} SHOW;

typedef struct _ACCOUNT {
    FAST_MUTEX Mutex;
    ULONGLONG Balance;
    ULONGLONG Number;               /* of journal lines ever written */
    LINE Journal[JOURNAL];
} ACCOUNT;

typedef struct _DEV {
    EE Ee;                          /* first */
    ACCOUNT Accounts[ACCOUNTS];
} DEV;

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);
}

/* The account's mutex is held. */
static VOID Note(ACCOUNT *a, LONGLONG change, ULONG other)
{
    LINE *l = &a->Journal[a->Number % JOURNAL];
    LARGE_INTEGER now;

    KeQuerySystemTime(&now);
    l->Time = now.QuadPart;
    l->Change = change;
    l->Other = other;
    l->Number = a->Number++;
}

static NTSTATUS BankMove(DEV *d, PIRP irp, ULONG in)
{
    ACCOUNT *from, *to, *first, *second;
    NTSTATUS st = STATUS_SUCCESS;
    MOVE m;

    if (in < sizeof(m))
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&m, irp->AssociatedIrp.SystemBuffer, sizeof(m));
    if (m.From >= ACCOUNTS || m.To >= ACCOUNTS || m.From == m.To || m.Amount > MAXLONGLONG)
        return STATUS_INVALID_PARAMETER;
    from = &d->Accounts[m.From];
    to = &d->Accounts[m.To];
#ifdef FIXED
    first = m.From < m.To ? from : to;
    second = m.From < m.To ? to : from;
#else
    first = from;
    second = to;
#endif
    ExAcquireFastMutex(&first->Mutex);
    ExAcquireFastMutex(&second->Mutex);
    if (from->Balance < m.Amount) {
        st = STATUS_QUOTA_EXCEEDED;
    } else if (to->Balance + m.Amount < to->Balance) {
        st = STATUS_INTEGER_OVERFLOW;
    } else {
        from->Balance -= m.Amount;
        to->Balance += m.Amount;
        Note(from, -(LONGLONG)m.Amount, m.To);
        Note(to, (LONGLONG)m.Amount, m.From);
    }
    ExReleaseFastMutex(&second->Mutex);
    ExReleaseFastMutex(&first->Mutex);
    return st;
}

static NTSTATUS BankMint(DEV *d, PIRP irp, ULONG in)
{
    NTSTATUS st = STATUS_SUCCESS;
    ACCOUNT *a;
    MOVE m;

    if (in < sizeof(m))
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&m, irp->AssociatedIrp.SystemBuffer, sizeof(m));
    if (m.To >= ACCOUNTS || m.Amount > MAXLONGLONG)
        return STATUS_INVALID_PARAMETER;
    a = &d->Accounts[m.To];
    ExAcquireFastMutex(&a->Mutex);
    if (a->Balance + m.Amount < a->Balance) {
        st = STATUS_INTEGER_OVERFLOW;
    } else {
        a->Balance += m.Amount;
        Note(a, (LONGLONG)m.Amount, m.To);
    }
    ExReleaseFastMutex(&a->Mutex);
    return st;
}

static NTSTATUS BankShow(DEV *d, PIRP irp, ULONG in, ULONG out, PULONG_PTR info)
{
    SHOW *s = irp->AssociatedIrp.SystemBuffer;
    ULONGLONG first;
    ULONG n, i;
    ACCOUNT *a;

    if (in < sizeof(n))
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof(n));
    if (n >= ACCOUNTS)
        return STATUS_INVALID_PARAMETER;
    if (out < sizeof(*s))
        return STATUS_BUFFER_TOO_SMALL;
    a = &d->Accounts[n];
    RtlZeroMemory(s, sizeof(*s));
    s->Account = n;
    ExAcquireFastMutex(&a->Mutex);
    s->Balance = a->Balance;
    s->Lines = a->Number < JOURNAL ? (ULONG)a->Number : JOURNAL;
    first = a->Number - s->Lines;
    for (i = 0; i < s->Lines; i++)
        s->Journal[i] = a->Journal[(first + i) % JOURNAL];
    ExReleaseFastMutex(&a->Mutex);
    *info = sizeof(*s);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    DEV *d = dev->DeviceExtension;
    ULONG_PTR info = 0;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (!d->Ee.Live) {
        st = STATUS_DEVICE_NOT_READY;
    } else {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_BANK_MOVE:
            st = BankMove(d, irp, in);
            break;
        case IOCTL_BANK_MINT:
            st = BankMint(d, irp, in);
            break;
        case IOCTL_BANK_SHOW:
            st = BankShow(d, irp, in, out, &info);
            break;
        default:
            st = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    EeDone(irp, st, info);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    NTSTATUS st;
    EE *ee;
    DEV *d;
    ULONG i;

    st = EeNew(drv, pdo, sizeof(DEV), &ee);
    if (!NT_SUCCESS(st))
        return st;
    d = CONTAINING_RECORD(ee, DEV, Ee);
    for (i = 0; i < ACCOUNTS; i++)
        ExInitializeFastMutex(&d->Accounts[i].Mutex);
    return EeAttach(ee, &BankGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
