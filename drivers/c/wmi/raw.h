/*
 * The provider of wmi_raw.sys: what it answers to each WMI request, with all lengths looked at, as the pages ask.
 *   11 tasks   dynamic names: Alpha and Beta, 6 bytes each
 *   12 colours the static names Red, Green and Blue, a ULONG each; an instance can be set, its item 1 too; method 1 doubles a ULONG
 *   13 ports   static names from the base Port, two; its events can be switched on; its data are 0x1800 bytes of 0x77
 *   14 above   the upper device's: one instance from the base Above, 8 bytes
 */
#ifndef WMI_RAW_H
#define WMI_RAW_H

#include <ddk/wdm.h>
#include <wmistr.h>

#define STORIES "wmi_raw"
#include "../control.h"
#include "../waits.h"
#include "blocks.h"
#include "too_small.h"

#define LARGE 0x1800

static PDEVICE_OBJECT Lower; /* the device with the name */
static PDEVICE_OBJECT Upper; /* the one above it */

static const GUID Tasks = WMI_BLOCK(0x11), Colours = WMI_BLOCK(0x12), Ports = WMI_BLOCK(0x13), Above = WMI_BLOCK(0x14);
static const PCWSTR TaskNames[] = {L"Alpha", L"Beta"};
static const PCWSTR ColourNames[] = {L"Red", L"Green", L"Blue"};
static ULONG Values[3] = {0xFF0000, 0x00FF00, 0x0000FF};
static BOOLEAN EventsOn;
static ULONG Switches;
static BOOLEAN NoColours; /* the next update takes them away */
static BOOLEAN Deregisters; /* a mistake: in a request */

static ULONG Padded(ULONG Length)
{
    return (Length + 7) & ~7u;
}

static ULONG Text(PUCHAR Node, ULONG At, PCWSTR String)
{
    USHORT Length = (USHORT)(wcslen(String) * sizeof(WCHAR));

    *(PUSHORT)(Node + At) = Length;
    RtlCopyMemory(Node + At + sizeof(USHORT), String, Length);
    return At + sizeof(USHORT) + Length;
}

static PWMIREGGUIDW Register(PWMIREGINFOW Info, ULONG Index, const GUID *Guid, ULONG Flags, ULONG Count)
{
    PWMIREGGUIDW Own = &Info->WmiRegGuid[Index];

    Own->Guid = *Guid;
    Own->Flags = Flags;
    Own->InstanceCount = Count;
    return Own;
}

static NTSTATUS AnswerRegInfo(PDEVICE_OBJECT Device, PIRP Irp, ULONG_PTR Kind, PUCHAR Buffer, ULONG Room)
{
    PWMIREGINFOW Info = (PWMIREGINFOW)Buffer;
    ULONG Count = Device == Upper ? 1 : 3, Index;
    ULONG At = sizeof(*Info) + Count * sizeof(WMIREGGUIDW);
    ULONG Needed = At + 0x100; /* room for the names */
    PWMIREGGUIDW Own;

    if (Room < Needed) {
        if (Room < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PULONG)Buffer = Needed;
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, sizeof(ULONG));
    }
    RtlZeroMemory(Buffer, Needed);
    Info->GuidCount = Count;
    Info->RegistryPath = At;
    At = Text(Buffer, At, L"\\Registry\\Machine\\System\\CurrentControlSet\\Services\\wmi_raw");
    if (Device == Upper) {
        Own = Register(Info, 0, &Above, WMIREG_FLAG_INSTANCE_BASENAME, 1);
        Own->BaseNameOffset = At;
        At = Text(Buffer, At, L"Above");
    } else {
        Register(Info, 0, &Tasks, 0, 0);
        Own = Register(Info, 1, &Colours, WMIREG_FLAG_INSTANCE_LIST, RTL_NUMBER_OF(ColourNames));
        if (Kind == WMIUPDATE && NoColours) {
            Own->Flags |= WMIREG_FLAG_REMOVE_GUID;
        }
        Own->InstanceNameList = At;
        for (Index = 0; Index < RTL_NUMBER_OF(ColourNames); Index++) {
            At = Text(Buffer, At, ColourNames[Index]);
        }
        Own = Register(Info, 2, &Ports, WMIREG_FLAG_INSTANCE_BASENAME, 2);
        Own->BaseNameOffset = At;
        At = Text(Buffer, At, L"Port");
    }
    Info->BufferSize = At;
    return Complete(Irp, STATUS_SUCCESS, At);
}

/* Two instances of 6 bytes with names that are unknown before. */
static NTSTATUS AnswerTasks(PIRP Irp, PUCHAR Buffer, ULONG Room)
{
    PWNODE_ALL_DATA Node = (PWNODE_ALL_DATA)Buffer;
    ULONG Names = Padded(sizeof(*Node)), At = Names + 2 * sizeof(ULONG), Data, Needed, Index;

    Data = Padded(At + 2 * (sizeof(USHORT) + 5 * sizeof(WCHAR)));
    Needed = Data + 8 + 6;
    if (Room < Needed) {
        return TooSmall(Irp, Buffer, Room, Needed);
    }
    Node->WnodeHeader.BufferSize = Needed;
    Node->WnodeHeader.Flags |= WNODE_FLAG_FIXED_INSTANCE_SIZE;
    Node->InstanceCount = 2;
    Node->FixedInstanceSize = 6;
    Node->DataBlockOffset = Data;
    Node->OffsetInstanceNameOffsets = Names;
    for (Index = 0; Index < 2; Index++) {
        ((PULONG)(Buffer + Names))[Index] = At;
        At = Text(Buffer, At, TaskNames[Index]);
        *(PULONG)(Buffer + Data + 8 * Index) = 100 + Index;
        *(PUSHORT)(Buffer + Data + 8 * Index + 4) = (USHORT)(200 + Index);
    }
    return Complete(Irp, STATUS_SUCCESS, Needed);
}

/* Instances of a size of their own each: all that have static names are answered alike. */
static NTSTATUS AnswerAll(PIRP Irp, PUCHAR Buffer, ULONG Room, ULONG Count, ULONG Size, const VOID *From)
{
    PWNODE_ALL_DATA Node = (PWNODE_ALL_DATA)Buffer;
    ULONG Data = Padded(FIELD_OFFSET(WNODE_ALL_DATA, OffsetInstanceDataAndLength) + Count * sizeof(OFFSETINSTANCEDATAANDLENGTH));
    ULONG Needed = Data + Count * Padded(Size), Index;

    if (Room < Needed) {
        return TooSmall(Irp, Buffer, Room, Needed);
    }
    Node->WnodeHeader.BufferSize = Needed;
    Node->WnodeHeader.Flags |= WNODE_FLAG_STATIC_INSTANCE_NAMES;
    Node->InstanceCount = Count;
    Node->DataBlockOffset = Data;
    Node->OffsetInstanceNameOffsets = 0;
    for (Index = 0; Index < Count; Index++) {
        Node->OffsetInstanceDataAndLength[Index].OffsetInstanceData = Data + Index * Padded(Size);
        Node->OffsetInstanceDataAndLength[Index].LengthInstanceData = Size;
        if (From == NULL) {
            RtlFillMemory(Buffer + Data + Index * Padded(Size), Size, 0x77);
        } else {
            RtlCopyMemory(Buffer + Data + Index * Padded(Size), (PUCHAR)From + Index * Size, Size);
        }
    }
    return Complete(Irp, STATUS_SUCCESS, Needed);
}

static NTSTATUS QueryAll(PDEVICE_OBJECT Device, PIRP Irp, const GUID *Guid, PUCHAR Buffer, ULONG Room)
{
    static const ULONGLONG Value = 0x1122334455667788;

    if (Device == Upper) {
        return AnswerAll(Irp, Buffer, Room, 1, sizeof(Value), &Value);
    }
    if (IsEqualGUID(Guid, &Tasks)) {
        return AnswerTasks(Irp, Buffer, Room);
    }
    if (IsEqualGUID(Guid, &Colours)) {
        return AnswerAll(Irp, Buffer, Room, RTL_NUMBER_OF(Values), sizeof(ULONG), Values);
    }
    if (IsEqualGUID(Guid, &Ports)) {
        return AnswerAll(Irp, Buffer, Room, 2, LARGE, NULL);
    }
    return Complete(Irp, STATUS_WMI_GUID_NOT_FOUND, 0);
}

/* Which instance a block is about; -1 if there is none. */
static LONG Instance(const GUID *Guid, PUCHAR Buffer, ULONG Room)
{
    PWNODE_SINGLE_INSTANCE Node = (PWNODE_SINGLE_INSTANCE)Buffer;
    ULONG Count = IsEqualGUID(Guid, &Colours) ? RTL_NUMBER_OF(Values) : IsEqualGUID(Guid, &Ports) ? 2 : 0, Index;

    if (Node->WnodeHeader.Flags & WNODE_FLAG_STATIC_INSTANCE_NAMES) {
        return Node->InstanceIndex < Count ? (LONG)Node->InstanceIndex : -1;
    }
    if (!IsEqualGUID(Guid, &Tasks) || Node->OffsetInstanceName + sizeof(USHORT) > Room) {
        return -1;
    }
    for (Index = 0; Index < RTL_NUMBER_OF(TaskNames); Index++) {
        USHORT Length = *(PUSHORT)(Buffer + Node->OffsetInstanceName);

        if (Length == wcslen(TaskNames[Index]) * sizeof(WCHAR) &&
            RtlCompareMemory(Buffer + Node->OffsetInstanceName + sizeof(USHORT), TaskNames[Index], Length) == Length) {
            return (LONG)Index;
        }
    }
    return -1;
}

static NTSTATUS QuerySingle(PIRP Irp, const GUID *Guid, PUCHAR Buffer, ULONG Room)
{
    PWNODE_SINGLE_INSTANCE Node = (PWNODE_SINGLE_INSTANCE)Buffer;
    LONG Index = Instance(Guid, Buffer, Room);
    ULONG Size = IsEqualGUID(Guid, &Tasks) ? 6 : IsEqualGUID(Guid, &Ports) ? LARGE : sizeof(ULONG);
    PUCHAR Data = Buffer + Node->DataBlockOffset;

    if (Index < 0) {
        return Complete(Irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0);
    }
    if (Room < Node->DataBlockOffset + Size) {
        return TooSmall(Irp, Buffer, Room, Node->DataBlockOffset + Size);
    }
    if (IsEqualGUID(Guid, &Tasks)) {
        *(PULONG)Data = 100 + (ULONG)Index;
        *(PUSHORT)(Data + 4) = (USHORT)(200 + Index);
    } else if (IsEqualGUID(Guid, &Ports)) {
        RtlFillMemory(Data, Size, 0x77);
    } else {
        *(PULONG)Data = Values[Index];
    }
    Node->SizeDataBlock = Size;
    Node->WnodeHeader.BufferSize = Node->DataBlockOffset + Size;
    return Complete(Irp, STATUS_SUCCESS, Node->WnodeHeader.BufferSize);
}

static NTSTATUS Change(PIRP Irp, const GUID *Guid, PUCHAR Buffer, ULONG Room, BOOLEAN Item)
{
    PWNODE_SINGLE_INSTANCE Node = (PWNODE_SINGLE_INSTANCE)Buffer;
    PWNODE_SINGLE_ITEM Own = (PWNODE_SINGLE_ITEM)Buffer;
    LONG Index = Instance(Guid, Buffer, Room);
    ULONG From = Item ? Own->DataBlockOffset : Node->DataBlockOffset, Size = Item ? Own->SizeDataItem : Node->SizeDataBlock;

    if (Index < 0) {
        return Complete(Irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0);
    }
    if (!IsEqualGUID(Guid, &Colours)) {
        return Complete(Irp, STATUS_WMI_READ_ONLY, 0);
    }
    if (Item && Own->ItemId != 1) {
        return Complete(Irp, STATUS_WMI_ITEMID_NOT_FOUND, 0);
    }
    if (Size != sizeof(ULONG) || From > Room || Room - From < Size) {
        return Complete(Irp, STATUS_WMI_SET_FAILURE, 0);
    }
    Values[Index] = *(PULONG)(Buffer + From);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Method(PIRP Irp, const GUID *Guid, PUCHAR Buffer, ULONG Room)
{
    PWNODE_METHOD_ITEM Node = (PWNODE_METHOD_ITEM)Buffer;
    PULONG Data = (PULONG)(Buffer + Node->DataBlockOffset);

    if (Instance(Guid, Buffer, Room) < 0) {
        return Complete(Irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0);
    }
    if (!IsEqualGUID(Guid, &Colours) || Node->MethodId != 1) {
        return Complete(Irp, STATUS_WMI_ITEMID_NOT_FOUND, 0);
    }
    if (Node->SizeDataBlock != sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (Room < Node->DataBlockOffset + sizeof(ULONG)) {
        return TooSmall(Irp, Buffer, Room, Node->DataBlockOffset + sizeof(ULONG));
    }
    *Data *= 2;
    Node->SizeDataBlock = sizeof(ULONG);
    Node->WnodeHeader.BufferSize = Node->DataBlockOffset + sizeof(ULONG);
    return Complete(Irp, STATUS_SUCCESS, Node->WnodeHeader.BufferSize);
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    const GUID *Guid = Stack->Parameters.WMI.DataPath;
    PUCHAR Buffer = Stack->Parameters.WMI.Buffer;
    ULONG Room = Stack->Parameters.WMI.BufferSize;

    if ((PDEVICE_OBJECT)Stack->Parameters.WMI.ProviderId != Device) {
        if (Device == Upper) {
            IoSkipCurrentIrpStackLocation(Irp);
            return IoCallDriver(Lower, Irp);
        }
        return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
    }
    switch (Stack->MinorFunction) {
    case IRP_MN_REGINFO:
    case IRP_MN_REGINFO_EX:
        return AnswerRegInfo(Device, Irp, (ULONG_PTR)Guid, Buffer, Room);
    case IRP_MN_QUERY_ALL_DATA:
        if (Deregisters) {
            IoWMIRegistrationControl(Device, WMIREG_ACTION_DEREGISTER);
        }
        return QueryAll(Device, Irp, Guid, Buffer, Room);
    case IRP_MN_QUERY_SINGLE_INSTANCE:
        return QuerySingle(Irp, Guid, Buffer, Room);
    case IRP_MN_CHANGE_SINGLE_INSTANCE:
        return Change(Irp, Guid, Buffer, Room, FALSE);
    case IRP_MN_CHANGE_SINGLE_ITEM:
        return Change(Irp, Guid, Buffer, Room, TRUE);
    case IRP_MN_EXECUTE_METHOD:
        return Method(Irp, Guid, Buffer, Room);
    case IRP_MN_ENABLE_EVENTS:
    case IRP_MN_DISABLE_EVENTS:
        if (!IsEqualGUID(Guid, &Ports)) {
            return Complete(Irp, STATUS_WMI_GUID_NOT_FOUND, 0);
        }
        EventsOn = Stack->MinorFunction == IRP_MN_ENABLE_EVENTS;
        Switches++;
        return Complete(Irp, STATUS_SUCCESS, 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

#endif
