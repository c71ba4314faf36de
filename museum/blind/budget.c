/*
 * budget: a root-enumerated quota service. Programs charge amounts to one of eight classes and refund them; the limits of the
 * classes come from the binary value "Limits" in the device's hardware key.
 *
 * The bug: the value's length is not compared with the table's; a longer value (an administrator's sixteen limits, say) is copied
 * past the end of the table's pool block.
 *
 * Device: ROOT\BUDGET
 * Rule: pool-overrun
 * Needs: registry
 */
#include <ddk/wdm.h>

static const GUID BudgetGuid = { 0x5d0a2c12, 0x7e43, 0x4b0e, { 0x9a, 0x61, 0x10, 0x42, 0x77, 0x3c, 0xd5, 0x02 } };

#define GG_GUID BudgetGuid
#define GG_IO DO_BUFFERED_IO
#define GG_SOFT
#include "../include/with_waits.h"

#define IOCTL_BUDGET_CHARGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BUDGET_REFUND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BUDGET_QUERY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_READ_ACCESS)

#define CLASSES       8
#define DEFAULT_LIMIT 1000

/* input of CHARGE and REFUND; CHARGE returns what is left (a ULONG) if there is room for it */
typedef struct _BUDGET_ORDER {
    ULONG Class, Amount;
} BUDGET_ORDER, *PBUDGET_ORDER;

/* input of QUERY: a class; output: */
typedef struct _BUDGET_STATE {
    ULONG Limit, Used, Refused;
} BUDGET_STATE, *PBUDGET_STATE;

typedef struct _BUDGET {
    GG Gg;
    KSPIN_LOCK BookLock;                    /* guards Used and Refused */
    PULONG Limits;                          /* CLASSES of them, constant once read */
    ULONG Used[CLASSES], Refused[CLASSES];
} BUDGET, *PBUDGET;

static ULONG HwSize(VOID)
{
    return sizeof(BUDGET);
}

/* Missing or unusable values leave the defaults. */
static VOID BudgetReadLimits(PBUDGET b)
{
    static const WCHAR name[] = L"Limits";
    UNICODE_STRING value;
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Room[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + 256];
    } v;
    NTSTATUS status;
    ULONG length;
    HANDLE key;

    status = IoOpenDeviceRegistryKey(b->Gg.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        return;
    RtlInitUnicodeString(&value, name);
    status = ZwQueryValueKey(key, &value, KeyValuePartialInformation, &v, sizeof v, &length);
    ZwClose(key);
    if (!NT_SUCCESS(status) || v.Info.Type != REG_BINARY || v.Info.DataLength % sizeof(ULONG))
        return;
    length = v.Info.DataLength;
#ifdef FIXED
    if (length > CLASSES * sizeof(ULONG))
        length = CLASSES * sizeof(ULONG);
#endif
    RtlCopyMemory(b->Limits, v.Info.Data, length);
}

static NTSTATUS HwInit(PGG g)
{
    PBUDGET b = CONTAINING_RECORD(g, BUDGET, Gg);
    ULONG i;

    KeInitializeSpinLock(&b->BookLock);
    b->Limits = ExAllocatePoolWithTag(NonPagedPool, CLASSES * sizeof(ULONG), GG_TAG);
    if (b->Limits == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < CLASSES; i++)
        b->Limits[i] = DEFAULT_LIMIT;
    BudgetReadLimits(b);
    return STATUS_SUCCESS;
}

static VOID HwFree(PGG g)
{
    ExFreePoolWithTag(CONTAINING_RECORD(g, BUDGET, Gg)->Limits, GG_TAG);
}

static NTSTATUS BudgetCharge(PBUDGET b, PBUDGET_ORDER order, PULONG left)
{
    ULONG class = order->Class;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (class >= CLASSES)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&b->BookLock, &irql);
    if (order->Amount > b->Limits[class] - b->Used[class]) {        /* Used never exceeds the limit */
        if (b->Refused[class] != MAXULONG)
            b->Refused[class]++;
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        b->Used[class] += order->Amount;
    }
    *left = b->Limits[class] - b->Used[class];
    KeReleaseSpinLock(&b->BookLock, irql);
    return status;
}

static NTSTATUS BudgetRefund(PBUDGET b, PBUDGET_ORDER order)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (order->Class >= CLASSES)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&b->BookLock, &irql);
    if (order->Amount > b->Used[order->Class])
        status = STATUS_INVALID_PARAMETER;
    else
        b->Used[order->Class] -= order->Amount;
    KeReleaseSpinLock(&b->BookLock, irql);
    return status;
}

static NTSTATUS BudgetQuery(PBUDGET b, ULONG class, PBUDGET_STATE state)
{
    KIRQL irql;

    if (class >= CLASSES)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&b->BookLock, &irql);
    state->Limit = b->Limits[class];
    state->Used = b->Used[class];
    state->Refused = b->Refused[class];
    KeReleaseSpinLock(&b->BookLock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS HwIo(PGG g, PIRP irp, PIO_STACK_LOCATION sp)
{
    PBUDGET b = CONTAINING_RECORD(g, BUDGET, Gg);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    BUDGET_ORDER order;
    BUDGET_STATE state;
    ULONG in, out, left = 0, class;
    ULONG_PTR info = 0;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BUDGET_CHARGE:
    case IOCTL_BUDGET_REFUND:
        if (in != sizeof order) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        RtlCopyMemory(&order, buffer, sizeof order);
        if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_BUDGET_REFUND) {
            status = BudgetRefund(b, &order);
            break;
        }
        status = BudgetCharge(b, &order, &left);
        if (NT_SUCCESS(status) && out >= sizeof left) {
            RtlCopyMemory(buffer, &left, sizeof left);
            info = sizeof left;
        }
        break;
    case IOCTL_BUDGET_QUERY:
        if (in != sizeof class || out < sizeof state) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        RtlCopyMemory(&class, buffer, sizeof class);
        status = BudgetQuery(b, class, &state);
        if (NT_SUCCESS(status)) {
            RtlCopyMemory(buffer, &state, sizeof state);
            info = sizeof state;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return GgEnd(irp, status, info);
}
