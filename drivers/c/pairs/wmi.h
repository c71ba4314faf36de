/* Pairs of WMI: a device that is registered, another attached above it, and what is asked of both. */
#ifndef PAIRS_WMI_H
#define PAIRS_WMI_H

#include "devices.h"
#include <wmistr.h>
#include "../wmi/too_small.h"

#ifndef WMIGUID_QUERY /* which wmistr.h has for applications' headers only */
#define WMIGUID_QUERY 0x0001
#endif

/* As providers answer for this block; what they do wrong is set before. */
static const GUID WmiBlock = {0xD1B0C0DE, 0x0000, 0x4000, {0x80, 0, 0, 0, 0, 0, 0, 0x50}};
static PDEVICE_OBJECT WmiLower; /* the provider */
static PDEVICE_OBJECT WmiUpper; /* above it, if it is there */
static BOOLEAN WmiSwallows;     /* the upper one completes what is the lower one's */
static BOOLEAN WmiLeaves;       /* it deregisters in a request */
static BOOLEAN WmiUnbounded;    /* its instance ends beyond the block */

static NTSTATUS WmiRegInfo(PIRP Irp, PUCHAR Buffer, ULONG Room)
{
    PWMIREGINFOW Info = (PWMIREGINFOW)Buffer;
    ULONG At = sizeof(*Info) + sizeof(WMIREGGUIDW);

    if (Room < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    if (Room < At + 4) {
        *(PULONG)Buffer = At + 4;
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, sizeof(ULONG));
    }
    RtlZeroMemory(Buffer, At + 4);
    Info->BufferSize = At + 4;
    Info->GuidCount = 1;
    Info->WmiRegGuid[0].Guid = WmiBlock;
    Info->WmiRegGuid[0].Flags = WMIREG_FLAG_INSTANCE_BASENAME;
    Info->WmiRegGuid[0].InstanceCount = 1;
    Info->WmiRegGuid[0].BaseNameOffset = At;
    *(PUSHORT)(Buffer + At) = sizeof(WCHAR);
    *(PWCHAR)(Buffer + At + 2) = L'A';
    return Complete(Irp, STATUS_SUCCESS, At + 4);
}

/* One instance of 8 bytes. */
static NTSTATUS WmiAll(PIRP Irp, PUCHAR Buffer, ULONG Room)
{
    PWNODE_ALL_DATA Node = (PWNODE_ALL_DATA)Buffer;

    if (Room < sizeof(*Node) + 8) {
        return TooSmall(Irp, Buffer, Room, sizeof(*Node) + 8);
    }
    Node->WnodeHeader.BufferSize = sizeof(*Node) + 8;
    KeQuerySystemTime(&Node->WnodeHeader.TimeStamp);
    Node->WnodeHeader.Flags |= WNODE_FLAG_FIXED_INSTANCE_SIZE | WNODE_FLAG_STATIC_INSTANCE_NAMES;
    Node->InstanceCount = 1;
    Node->OffsetInstanceNameOffsets = 0;
    Node->FixedInstanceSize = WmiUnbounded ? 0x2000 : 8;
    Node->DataBlockOffset = sizeof(*Node);
    RtlZeroMemory(Buffer + sizeof(*Node), 8);
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Node) + 8);
}

static NTSTATUS NTAPI WmiDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    UCHAR Minor = Stack->MinorFunction;

    if (Device == WmiUpper && !WmiSwallows) {
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(WmiLower, Irp);
    }
    if (Device == WmiUpper || (PDEVICE_OBJECT)Stack->Parameters.WMI.ProviderId != Device) {
        return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
    }
    if (Minor == IRP_MN_REGINFO_EX) {
        return WmiRegInfo(Irp, Stack->Parameters.WMI.Buffer, Stack->Parameters.WMI.BufferSize);
    }
    if (Minor == IRP_MN_QUERY_ALL_DATA && IsEqualGUID((GUID *)Stack->Parameters.WMI.DataPath, &WmiBlock)) {
        if (WmiLeaves) {
            IoWMIRegistrationControl(Device, WMIREG_ACTION_DEREGISTER);
        }
        return WmiAll(Irp, Stack->Parameters.WMI.Buffer, Stack->Parameters.WMI.BufferSize);
    }
    return Complete(Irp, STATUS_WMI_GUID_NOT_FOUND, 0);
}

static VOID WmiDelete(VOID)
{
    if (WmiUpper != NULL) {
        IoDetachDevice(WmiLower);
        IoDeleteDevice(WmiUpper);
        WmiUpper = NULL;
    }
    IoDeleteDevice(WmiLower);
}

/* Attaches a device above the provider, or deletes the provider, too. */
static BOOLEAN WmiAttach(VOID)
{
    PDEVICE_OBJECT Upper = NewDevice();

    WmiUpper = Upper; /* requests come to it as soon as it is attached */
    if (Upper != NULL && IoAttachDeviceToDeviceStack(Upper, WmiLower) != NULL) {
        return TRUE;
    }
    WmiUpper = NULL;
    if (Upper != NULL) {
        IoDeleteDevice(Upper);
    }
    WmiDelete();
    return FALSE;
}

/* A device that may be a provider, maybe with one above it. */
static BOOLEAN WmiDevices(BOOLEAN Two)
{
    TheDriver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = WmiDispatch;
    WmiLower = NewDevice();
    return WmiLower != NULL && (!Two || WmiAttach());
}

/* A provider whose registration the system has taken; there are no devices any more if it has not. */
static BOOLEAN WmiRegister(PDEVICE_OBJECT Provider)
{
    if (!NT_SUCCESS(IoWMIRegistrationControl(Provider, WMIREG_ACTION_REGISTER))) {
        WmiDelete();
        return FALSE;
    }
    Delay(1);
    return TRUE;
}

static BOOLEAN WmiBegin(VOID)
{
    return WmiDevices(FALSE) && WmiRegister(WmiLower);
}

/* Deregistered first: no request is under way then. */
static VOID WmiEnd(VOID)
{
    IoWMIRegistrationControl(WmiLower, WMIREG_ACTION_DEREGISTER);
    WmiDelete();
}

/* Asks for all instances. */
static VOID WmiAsk(VOID)
{
    ULONG Size = 0;
    PVOID Object;

    if (NT_SUCCESS(IoWMIOpenBlock((GUID *)&WmiBlock, WMIGUID_QUERY, &Object))) {
        IoWMIQueryAllData(Object, &Size, NULL);
        ObDereferenceObject(Object);
    }
}

static VOID WmiBadBlock(BOOLEAN Wrong)
{
    WmiUnbounded = Wrong;
    if (WmiBegin()) {
        WmiAsk();
        WmiEnd();
    }
}

static VOID WmiBlockLeak(BOOLEAN Wrong)
{
    PVOID Object = NULL;

    if (NT_SUCCESS(IoWMIOpenBlock((GUID *)&WmiBlock, WMIGUID_QUERY, &Object)) && !Wrong) {
        ObDereferenceObject(Object);
    }
}

static VOID NotAWmiBlock(BOOLEAN Wrong)
{
    ULONG Size = 0;
    PVOID Object = NULL;

    if (NT_SUCCESS(IoWMIOpenBlock((GUID *)&WmiBlock, WMIGUID_QUERY, &Object))) {
        IoWMIQueryAllData(Wrong ? (PVOID)TheDevice : Object, &Size, NULL);
        ObDereferenceObject(Object);
    }
}

static VOID WmiDeregisteredInRequest(BOOLEAN Wrong)
{
    WmiLeaves = Wrong;
    if (WmiBegin()) {
        WmiAsk();
        WmiEnd();
    }
}

static VOID WmiDeregisteredTwice(BOOLEAN Wrong)
{
    if (WmiBegin()) {
        if (Wrong) {
            IoWMIRegistrationControl(WmiLower, WMIREG_ACTION_DEREGISTER);
        }
        WmiEnd();
    }
}

/* Wrong: the device above is the provider, and what it passes down is completed below. */
static VOID WmiRegistrationPassedDown(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Provider;

    if (WmiDevices(TRUE)) {
        Provider = Wrong ? WmiUpper : WmiLower;
        if (WmiRegister(Provider)) {
            IoWMIRegistrationControl(Provider, WMIREG_ACTION_DEREGISTER);
            WmiDelete();
        }
    }
}

static VOID WmiRequestNotForwarded(BOOLEAN Wrong)
{
    WmiSwallows = FALSE;
    if (WmiDevices(TRUE) && WmiRegister(WmiLower)) {
        WmiSwallows = Wrong;
        WmiAsk();
        WmiEnd();
    }
}

static VOID WmiStillRegistered(BOOLEAN Wrong)
{
    if (WmiBegin()) {
        if (!Wrong) {
            IoWMIRegistrationControl(WmiLower, WMIREG_ACTION_DEREGISTER);
        }
        WmiDelete();
    }
}

#define WMI_PAIRS                                                                                                      \
    PAIR("not-a-wmi-block", NotAWmiBlock)                                                                              \
    PAIR("wmi-bad-block", WmiBadBlock)                                                                                 \
    PAIR("wmi-block-leak", WmiBlockLeak)                                                                               \
    PAIR("wmi-deregistered-in-request", WmiDeregisteredInRequest)                                                      \
    PAIR("wmi-deregistered-twice", WmiDeregisteredTwice)                                                               \
    PAIR("wmi-registration-passed-down", WmiRegistrationPassedDown)                                                    \
    PAIR("wmi-request-not-forwarded", WmiRequestNotForwarded)                                                          \
    PAIR("wmi-still-registered", WmiStillRegistered)                                                                   \

#endif
