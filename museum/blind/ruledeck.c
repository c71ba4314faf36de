/*
 * ruledeck: reads a list of names from its registry key (Parameters, Rules: REG_MULTI_SZ) and tells applications whether a name is on it.
 *
 * The bug: the list is walked as if it ended with two zeros, which the registry does not warrant, so the walk reads beyond the allocation.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: registry
 */
#include "../include/bay_control.h"

#define IOCTL_MATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* in: name; out: ULONG index */

#define TAG 'urFA'
#define RULES 32
#define BIGGEST 16384u

static KEY_VALUE_PARTIAL_INFORMATION *Value;
static UNICODE_STRING Rule[RULES];
static ULONG Rules;

static NTSTATUS Read(HANDLE key)
{
    UNICODE_STRING name;
    KEY_VALUE_PARTIAL_INFORMATION head, *value;
    ULONG needed = 0, size;
    NTSTATUS status;
    PCWSTR at;

    RtlInitUnicodeString(&name, L"Rules");
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &head, sizeof head, &needed);
    if (status == STATUS_OBJECT_NAME_NOT_FOUND)
        return STATUS_SUCCESS;
    if (!NT_SUCCESS(status) && status != STATUS_BUFFER_OVERFLOW && status != STATUS_BUFFER_TOO_SMALL)
        return status;
    if (needed < sizeof head)
        needed = sizeof head;
    if (needed > BIGGEST)
        return STATUS_BUFFER_OVERFLOW;
#ifndef FIXED
    size = needed;
#else
    size = needed + 2 * sizeof(WCHAR) + 1;      /* two zeros behind whatever it is, of odd length even */
#endif
    value = ExAllocatePoolWithTag(PagedPool, size, TAG);
    if (!value)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(value, size);
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, value, needed, &needed);
    if (NT_SUCCESS(status) && value->Type != REG_MULTI_SZ)
        status = STATUS_OBJECT_TYPE_MISMATCH;
    if (!NT_SUCCESS(status) || value->DataLength < sizeof(WCHAR)) {
        ExFreePoolWithTag(value, TAG);
        return status;
    }
    for (at = (PCWSTR)value->Data; *at && Rules < RULES; ++Rules) {
        RtlInitUnicodeString(&Rule[Rules], at);
        at += Rule[Rules].Length / sizeof(WCHAR) + 1;
    }
    Value = value;
    return STATUS_SUCCESS;
}

static NTSTATUS Load(UNICODE_STRING *path)
{
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING name;
    HANDLE service, key;
    NTSTATUS status;

    InitializeObjectAttributes(&attributes, path, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    status = ZwOpenKey(&service, KEY_READ, &attributes);
    if (!NT_SUCCESS(status))
        return status;
    RtlInitUnicodeString(&name, L"Parameters");
    InitializeObjectAttributes(&attributes, &name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, service, NULL);
    status = ZwOpenKey(&key, KEY_READ, &attributes);
    if (NT_SUCCESS(status)) {
        status = Read(key);
        ZwClose(key);
    } else if (status == STATUS_OBJECT_NAME_NOT_FOUND) {
        status = STATUS_SUCCESS;
    }
    ZwClose(service);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength, i;
    UNICODE_STRING name;

    UNREFERENCED_PARAMETER(self);
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_MATCH)
        return AfcComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (in == 0 || in > 512 || in % sizeof(WCHAR))
        return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
    if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return AfcComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
    name.Buffer = irp->AssociatedIrp.SystemBuffer;
    name.Length = name.MaximumLength = (USHORT)in;
    for (i = 0; i < Rules; ++i) {
        if (RtlEqualUnicodeString(&name, &Rule[i], TRUE)) {
            *(ULONG *)irp->AssociatedIrp.SystemBuffer = i;
            return AfcComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
        }
    }
    return AfcComplete(irp, STATUS_NOT_FOUND, 0);
}

static void Forget(void)
{
    if (Value)
        ExFreePoolWithTag(Value, TAG);
    Value = NULL;
    Rules = 0;
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    AfcDelete(L"\\DosDevices\\AfRuledeck");
    Forget();
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS status = Load(path);

    if (!NT_SUCCESS(status))
        return status;
    driver->MajorFunction[IRP_MJ_CREATE] = AfcNothing;
    driver->MajorFunction[IRP_MJ_CLOSE] = AfcNothing;
    driver->MajorFunction[IRP_MJ_CLEANUP] = AfcNothing;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    status = AfcMake(driver, L"\\Device\\AfRuledeck", L"\\DosDevices\\AfRuledeck");
    if (!NT_SUCCESS(status))
        Forget();
    return status;
}
