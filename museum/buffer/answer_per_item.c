/*
 * A table of readings of which an application asks for some: the input says from which one on and how many, and the output must have room for exactly that many, behind
 * a header.
 *
 * The bug: the readings are copied up to the last one asked for and one more, which goes beyond the buffer. It shows where the last reading in the buffer ends with it.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Readings"
#define LINK_NAME L"\\DosDevices\\Readings"
#include "../include/driver.h"
#include "../include/legacy.h"

#define IOCTL_READINGS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA21, METHOD_BUFFERED, FILE_READ_ACCESS)
#define READINGS 0x1000

typedef struct _QUESTION {
    ULONG64 Reserved;
    ULONG Count;
    ULONG First;
    ULONG64 Scale;
} QUESTION, *PQUESTION;

typedef struct _ANSWER {
    ULONG Count;
    ULONG Total;
    ULONG Readings[1]; /* so many as Count says */
} ANSWER, *PANSWER;

typedef struct _DEVICE {
    ULONG Readings[READINGS];
} DEVICE, *PDEVICE;

static NTSTATUS Read(PDEVICE Own, PVOID Buffer, ULONG Output, PULONG Bytes)
{
    QUESTION Question = *(PQUESTION)Buffer;
    PANSWER Answer = Buffer;
    ULONG Reading, End;

    if (Question.Count == 0 || Question.Count > READINGS || Question.First > READINGS - Question.Count) {
        return STATUS_INVALID_PARAMETER;
    }
    if (Output != FIELD_OFFSET(ANSWER, Readings) + Question.Count * sizeof(ULONG)) {
        return STATUS_INVALID_BUFFER_SIZE;
    }
    End = Question.Count;
#ifndef FIXED
    End = min(End + 1, READINGS - Question.First);
#endif
    for (Reading = 0; Reading < End; Reading++) {
        Answer->Readings[Reading] = Own->Readings[Question.First + Reading];
    }
    Answer->Count = Question.Count;
    Answer->Total = READINGS;
    *Bytes = Output;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Bytes = 0;
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_READINGS) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) != sizeof(QUESTION)) {
        return Complete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    }
    Status = Read(Device->DeviceExtension, Irp->AssociatedIrp.SystemBuffer, Stack->Parameters.DeviceIoControl.OutputBufferLength, &Bytes);
    return Complete(Irp, Status, Bytes);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);
    PDEVICE Own;
    ULONG Reading;

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Own = Device->DeviceExtension;
        for (Reading = 0; Reading < READINGS; Reading++) {
            Own->Readings[Reading] = Reading * Reading;
        }
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
