/* Adding the device, and the device below it that some pairs have. */
#ifndef PAIRS_CARD_ADDING_H
#define PAIRS_CARD_ADDING_H

#include "card.h"

/* {D5A1E2B4-6C37-4F09-8E5D-21C07B94A3F7} */
static const GUID InterfaceClass = {0xD5A1E2B4, 0x6C37, 0x4F09, {0x8E, 0x5D, 0x21, 0xC0, 0x7B, 0x94, 0xA3, 0xF7}};
/* GUID_BUS_INTERFACE_STANDARD */
static const GUID BusInterface = {0x496B8280, 0x6F25, 0x11D0, {0xBE, 0xAF, 0x08, 0x00, 0x2B, 0xE2, 0x09, 0x2F}};
static UNICODE_STRING CardName = RTL_CONSTANT_STRING(L"\\Device\\PairsPnp");
static UNICODE_STRING CardLink = RTL_CONSTANT_STRING(L"\\DosDevices\\PairsPnp");

/* A device that is attached, and not yet ready. */
static PCARD NewCard(PDEVICE_OBJECT Pdo, PUNICODE_STRING Name)
{
    PDEVICE_OBJECT Device;
    PCARD Card;

    if (!NT_SUCCESS(IoCreateDevice(TheDriver, sizeof(CARD), Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                                   &Device))) {
        return NULL;
    }
    Card = Device->DeviceExtension;
    RtlZeroMemory(Card, sizeof(*Card));
    Card->Self = Device;
    Card->Pdo = Pdo;
    KeInitializeEvent(&Card->Turn, SynchronizationEvent, TRUE);
    Card->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Card->Lower == NULL) {
        IoDeleteDevice(Device);
        return NULL;
    }
    return Card;
}

/* Takes it back, if it is there. */
static VOID Discard(PCARD Card)
{
    if (Card != NULL) {
        IoDetachDevice(Card->Lower);
        IoDeleteDevice(Card->Self);
    }
}

static PCARD AddLower(PDEVICE_OBJECT Pdo)
{
    PCARD Lower = NewCard(Pdo, NULL);

    if (Lower != NULL) {
        Lower->IsLower = TRUE;
        Lower->Self->Flags |= DO_POWER_PAGABLE;
        Lower->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return Lower;
}

static VOID GetBus(PCARD Card)
{
    IO_STATUS_BLOCK Status = {0};
    PDEVICE_OBJECT Top = IoGetAttachedDeviceReference(Card->Pdo);
    PIO_STACK_LOCATION Next;
    KEVENT Done;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Top, NULL, 0, NULL, &Done, &Status);
    if (Irp == NULL) {
        ObDereferenceObject(Top);
        return;
    }
    Next = IoGetNextIrpStackLocation(Irp);
    Next->MinorFunction = IRP_MN_QUERY_INTERFACE;
    Next->Parameters.QueryInterface.InterfaceType = &BusInterface;
    Next->Parameters.QueryInterface.Size = sizeof(Card->Bus);
    Next->Parameters.QueryInterface.Version = 1;
    Next->Parameters.QueryInterface.Interface = (PINTERFACE)&Card->Bus;
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    if (IoCallDriver(Top, Irp) == STATUS_PENDING) {
        WaitFor(&Done);
    }
    ObDereferenceObject(Top);
    Card->HasBus = NT_SUCCESS(Status.Status);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PCARD Card, Lower = NULL;
    ULONG Number, Length;
    NTSTATUS Status = ReadSetting(Pdo);

    UNREFERENCED_PARAMETER(Driver);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (Is(PagableNotTaken)) {
        Lower = AddLower(Pdo);
        if (Lower == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    Card = NewCard(Pdo, &CardName);
    if (Card == NULL) {
        Discard(Lower);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (Is(LeftAttached) || IsWrong(AttachedNothing)) {
        if (!IsWrong(LeftAttached)) {
            Discard(Card);
        }
        return Is(LeftAttached) ? STATUS_UNSUCCESSFUL : STATUS_SUCCESS;
    }
    if (!IsWrong(PagableNotTaken)) {
        Card->Self->Flags |= Card->Lower->Flags & DO_POWER_PAGABLE;
    }
    if (IsWrong(BothFlags)) {
        Card->Self->Flags |= DO_BUFFERED_IO | DO_DIRECT_IO;
    }
    if (Is(InrushPagable)) {
        Card->Self->Flags &= ~DO_POWER_PAGABLE;
        Card->Self->Flags |= DO_POWER_INRUSH | (IsWrong(InrushPagable) ? DO_POWER_PAGABLE : 0);
    }
    if (HasLock()) {
        IoInitializeRemoveLock(&Card->RemoveLock, TAG, 0, 0);
    }
    if (IsWrong(StackSizeLeft)) {
        Card->Self->StackSize = Card->Lower->StackSize;
    }
    IoGetDeviceProperty(IsWrong(NotPhysical) ? Card->Self : Pdo, DevicePropertyBusNumber, sizeof(Number), &Number,
                        &Length);
    Status = IoRegisterDeviceInterface(Pdo, &InterfaceClass, NULL, &Card->Interface);
    if (NT_SUCCESS(Status)) {
        Status = IoCreateSymbolicLink(&CardLink, &CardName);
    }
    if (!NT_SUCCESS(Status)) {
        RtlFreeUnicodeString(&Card->Interface);
        Discard(Card);
        Discard(Lower);
        return Status;
    }
    if (!IsWrong(StillInitializing)) {
        Card->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return STATUS_SUCCESS;
}

#endif
