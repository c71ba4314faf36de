/*
 * bursar: accounts for quotas that several programs share. Programs pay in, ask for a balance, transfer between two accounts, and
 * have all accounts added up; each account has a mutex of its own, so that strangers do not wait for each other.
 *
 * The bug: a transfer takes the mutex of the account that pays first and then that of the one that is paid. Two transfers in opposite
 * directions, or a transfer towards a lower account and the sum over all, wait for each other for ever.
 *
 * Device: none
 * Rule: lock-order-inversion, deadlock, stuck
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

#define BURSAR_NAME L"\\Device\\Bursar"
#define BURSAR_LINK L"\\DosDevices\\Bursar"
#define BURSAR_ACCOUNTS 8

#define IOCTL_BURSAR_PAYIN    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BURSAR_BALANCE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BURSAR_TRANSFER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BURSAR_SUM      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x883, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _BURSAR_PAYIN {
    ULONG Account;
    ULONG Amount;
} BURSAR_PAYIN;

typedef struct _BURSAR_TRANSFER {
    ULONG From;
    ULONG To;
    ULONG Amount;
} BURSAR_TRANSFER;

typedef struct _ACCOUNT {
    KMUTEX Mutex;
    ULONGLONG Balance;
} ACCOUNT;

typedef struct _BURSAR {
    ACCOUNT Accounts[BURSAR_ACCOUNTS];
} BURSAR;

static PDEVICE_OBJECT BursarDevice;

static VOID BursarLock(ACCOUNT *A)
{
    KeWaitForSingleObject(&A->Mutex, Executive, KernelMode, FALSE, NULL);
}

static VOID BursarUnlock(ACCOUNT *A)
{
    KeReleaseMutex(&A->Mutex, FALSE);
}

static NTSTATUS BursarPayIn(BURSAR *B, const BURSAR_PAYIN *Pay)
{
    ACCOUNT *a;

    if (Pay->Account >= BURSAR_ACCOUNTS)
        return STATUS_INVALID_PARAMETER;
    a = &B->Accounts[Pay->Account];
    BursarLock(a);
    a->Balance += Pay->Amount;
    BursarUnlock(a);
    return STATUS_SUCCESS;
}

static NTSTATUS BursarBalance(BURSAR *B, ULONG Account, ULONGLONG *Balance)
{
    ACCOUNT *a;

    if (Account >= BURSAR_ACCOUNTS)
        return STATUS_INVALID_PARAMETER;
    a = &B->Accounts[Account];
    BursarLock(a);
    *Balance = a->Balance;
    BursarUnlock(a);
    return STATUS_SUCCESS;
}

static NTSTATUS BursarTransfer(BURSAR *B, const BURSAR_TRANSFER *T)
{
    NTSTATUS status = STATUS_SUCCESS;
    ACCOUNT *from, *to, *first, *second;

    if (T->From >= BURSAR_ACCOUNTS || T->To >= BURSAR_ACCOUNTS || T->From == T->To)
        return STATUS_INVALID_PARAMETER;
    from = &B->Accounts[T->From];
    to = &B->Accounts[T->To];
#ifndef FIXED
    first = from;
    second = to;
#else
    first = T->From < T->To ? from : to;
    second = T->From < T->To ? to : from;
#endif
    BursarLock(first);
    BursarLock(second);
    if (from->Balance < T->Amount) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        from->Balance -= T->Amount;
        to->Balance += T->Amount;
    }
    BursarUnlock(second);
    BursarUnlock(first);
    return status;
}

/* Nothing may be on its way between two accounts while they are added up. */
static ULONGLONG BursarSum(BURSAR *B)
{
    ULONGLONG sum = 0;
    ULONG i;

    for (i = 0; i < BURSAR_ACCOUNTS; i++)
        BursarLock(&B->Accounts[i]);
    for (i = 0; i < BURSAR_ACCOUNTS; i++)
        sum += B->Accounts[i].Balance;
    for (i = BURSAR_ACCOUNTS; i-- > 0;)
        BursarUnlock(&B->Accounts[i]);
    return sum;
}

static NTSTATUS NTAPI BursarControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    BURSAR *b = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONGLONG amount = 0;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BURSAR_PAYIN:
        status = in == sizeof(BURSAR_PAYIN) ? BursarPayIn(b, buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_BURSAR_BALANCE:
        if (in < sizeof(ULONG) || out < sizeof(ULONGLONG)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        status = BursarBalance(b, *(ULONG *)buffer, &amount);
        if (NT_SUCCESS(status)) {
            RtlCopyMemory(buffer, &amount, sizeof(amount));
            information = sizeof(amount);
        }
        break;
    case IOCTL_BURSAR_TRANSFER:
        status = in == sizeof(BURSAR_TRANSFER) ? BursarTransfer(b, buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_BURSAR_SUM:
        if (out < sizeof(ULONGLONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        amount = BursarSum(b);
        RtlCopyMemory(buffer, &amount, sizeof(amount));
        information = sizeof(amount);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return desk_reply(Irp, status, information);
}

static VOID NTAPI BursarUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    desk_withdraw(BURSAR_LINK);
    IoDeleteDevice(BursarDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    BURSAR *b;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = desk_nod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BursarControl;
    Driver->DriverUnload = BursarUnload;

    status = desk_make(Driver, BURSAR_NAME, sizeof(BURSAR), 0, &BursarDevice);
    if (!NT_SUCCESS(status))
        return status;
    b = BursarDevice->DeviceExtension;
    for (i = 0; i < BURSAR_ACCOUNTS; i++)
        KeInitializeMutex(&b->Accounts[i].Mutex, 0);
    status = desk_publish(BURSAR_LINK, BURSAR_NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(BursarDevice);
    return status;
}
