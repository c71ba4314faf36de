/*
 * pinvault: keeps up to 32 small secrets of up to 240 bytes for programs, each behind a PIN;
 * three wrong PINs lock a secret until it is erased.
 *
 * The bug: a fetch returns the whole output structure though only the secret's own bytes were filled in, so that old
 * pool contents are disclosed.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define SECRETS 32u
#define LONGEST 240u
typedef struct { ULONG Slot, Pin, Length; UCHAR Data[LONGEST]; } VAULT_STORE;
typedef struct { ULONG Slot, Pin; } VAULT_KEY;
typedef struct { ULONG Length; UCHAR Data[LONGEST]; } VAULT_ANSWER;

#define IOCTL_VAULT_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_VAULT_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_VAULT_ERASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define TAG 'tluV'

typedef struct {
    ULONG Pin, Wrong, Length;
    UCHAR Data[LONGEST];
} SECRET, *PSECRET;

typedef struct {
    FAST_MUTEX Mutex;
    PSECRET Slot[SECRETS];
} VAULT, *PVAULT;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\PinVault");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\PinVault");

static VOID Wipe(PSECRET S)
{
    volatile UCHAR *p = (volatile UCHAR *)S;
    ULONG i;
    for (i = 0; i < sizeof(*S); i++)
        p[i] = 0;
    ExFreePoolWithTag(S, TAG);
}

/* Mutex held. Finds a secret and tries the PIN. */
static NTSTATUS Unlock(PVAULT V, ULONG Slot, ULONG Pin, PSECRET *Out)
{
    PSECRET s;
    if (Slot >= SECRETS)
        return STATUS_INVALID_PARAMETER;
    s = V->Slot[Slot];
    if (!s)
        return STATUS_NOT_FOUND;
    if (s->Wrong >= 3)
        return STATUS_ACCOUNT_LOCKED_OUT;
    if (s->Pin != Pin) {
        s->Wrong++;
        return STATUS_WRONG_PASSWORD;
    }
    s->Wrong = 0;
    *Out = s;
    return STATUS_SUCCESS;
}

static NTSTATUS Store(PVAULT V, VAULT_STORE *In, ULONG Size)
{
    PSECRET s;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG head = FIELD_OFFSET(VAULT_STORE, Data);
    if (Size < head)
        return STATUS_INFO_LENGTH_MISMATCH;
    if (In->Slot >= SECRETS || In->Length == 0 || In->Length > LONGEST || Size - head < In->Length)
        return STATUS_INVALID_PARAMETER;
    s = ExAllocatePoolWithTag(PagedPool, sizeof(*s), TAG);
    if (!s)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(s, sizeof(*s));
    s->Pin = In->Pin;
    s->Length = In->Length;
    RtlCopyMemory(s->Data, In->Data, In->Length);
    ExAcquireFastMutex(&V->Mutex);
    if (V->Slot[In->Slot])
        st = STATUS_OBJECT_NAME_COLLISION;
    else
        V->Slot[In->Slot] = s;
    ExReleaseFastMutex(&V->Mutex);
    if (!NT_SUCCESS(st))
        Wipe(s);
    return st;
}

static NTSTATUS Fetch(PVAULT V, PVOID Buf, ULONG In, ULONG Out, ULONG_PTR *Info)
{
    VAULT_KEY key;
    VAULT_ANSWER *answer = Buf;
    PSECRET s;
    NTSTATUS st;
    if (In != sizeof(VAULT_KEY))
        return STATUS_INFO_LENGTH_MISMATCH;
    if (Out < sizeof(VAULT_ANSWER))
        return STATUS_BUFFER_TOO_SMALL;
    key = *(VAULT_KEY *)Buf;
    ExAcquireFastMutex(&V->Mutex);
    st = Unlock(V, key.Slot, key.Pin, &s);
    if (NT_SUCCESS(st)) {
        answer->Length = s->Length;
        RtlCopyMemory(answer->Data, s->Data, s->Length);
#ifdef FIXED
        *Info = FIELD_OFFSET(VAULT_ANSWER, Data) + s->Length;
#else
        *Info = sizeof(VAULT_ANSWER);
#endif
    }
    ExReleaseFastMutex(&V->Mutex);
    return st;
}

static NTSTATUS Erase(PVAULT V, VAULT_KEY *Key, ULONG In)
{
    PSECRET s = NULL;
    NTSTATUS st;
    if (In != sizeof(VAULT_KEY))
        return STATUS_INFO_LENGTH_MISMATCH;
    ExAcquireFastMutex(&V->Mutex);
    st = Unlock(V, Key->Slot, Key->Pin, &s);
    if (st == STATUS_ACCOUNT_LOCKED_OUT) {       /* may be erased by anyone */
        s = V->Slot[Key->Slot];
        st = STATUS_SUCCESS;
    }
    if (NT_SUCCESS(st))
        V->Slot[Key->Slot] = NULL;
    ExReleaseFastMutex(&V->Mutex);
    if (NT_SUCCESS(st))
        Wipe(s);
    return st;
}

static NTSTATUS NTAPI VaultControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PVAULT V = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR info = 0;
    NTSTATUS st;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VAULT_STORE: st = Store(V, buf, in); break;
    case IOCTL_VAULT_FETCH: st = Fetch(V, buf, in, out, &info); break;
    case IOCTL_VAULT_ERASE: st = Erase(V, buf, in); break;
    default: st = STATUS_INVALID_DEVICE_REQUEST;
    }
    Irp->IoStatus.Status = st;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return st;
}
static NTSTATUS NTAPI VaultOpenClose(PDEVICE_OBJECT D, PIRP Irp)
{
    UNREFERENCED_PARAMETER(D);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}
static VOID NTAPI VaultUnload(PDRIVER_OBJECT Drv)
{
    PVAULT V = Drv->DeviceObject->DeviceExtension;
    ULONG i;
    IoDeleteSymbolicLink(&LinkName);
    for (i = 0; i < SECRETS; i++)
        if (V->Slot[i])
            Wipe(V->Slot[i]);
    IoDeleteDevice(Drv->DeviceObject);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT d;
    PVAULT V;
    NTSTATUS st;
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverUnload = VaultUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = VaultOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = VaultOpenClose;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = VaultControl;
    st = IoCreateDevice(Drv, sizeof(VAULT), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        return st;
    V = d->DeviceExtension;
    RtlZeroMemory(V, sizeof(*V));
    ExInitializeFastMutex(&V->Mutex);
    st = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(st))
        IoDeleteDevice(d);
    return st;
}
