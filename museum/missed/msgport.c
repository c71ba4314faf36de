/*
 * A message queue between processes: one process makes a named port, others connect to it and send requests,
 * which the server receives and replies to.
 *
 * Device: none
 * The bug: a request that the server has received keeps a plain pointer to its sender's endpoint, so a reply after the sender has closed its handle uses freed memory.
 * Shows by: a client posts a request that wants a reply, the server receives it, the client closes its handle, and then the server replies.
 */
#include <ddk/wdm.h>

#define MSG_TAG            'tPsM'
#define MSG_MAX_NAME       32
#define MSG_MAX_BODY       4096
#define MSG_MAX_QUEUED     64

#define IOCTL_MSG_SERVE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MSG_CONNECT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MSG_POST     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MSG_RECEIVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_MSG_REPLY    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x904, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MSG_STATUS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x905, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifndef NonPagedPoolNx
#define NonPagedPoolNx ((POOL_TYPE)512)
#endif

#define POST_WANTS_REPLY   1u

typedef struct _POST_HEADER { ULONG Flags; ULONG Cookie; } POST_HEADER;                 /* then the body */
typedef struct _REPLY_HEADER { ULONG Id; } REPLY_HEADER;                                /* then the body */
typedef struct _RECEIVED_HEADER { ULONG Id; ULONG Cookie; ULONG Length; ULONG IsReply; } RECEIVED_HEADER;
typedef struct _PORT_STATUS { ULONG Role; ULONG Queued; ULONG Outstanding; ULONG Dropped; } PORT_STATUS;

typedef enum _ROLE { RoleNone, RoleServer, RoleClient } ROLE;

struct _ENDPOINT;

typedef struct _PORT {
    LIST_ENTRY Link;                    /* in Ports, as long as there is a server */
    LONG References;
    struct _ENDPOINT *Server;           /* NULL when it has gone */
    LIST_ENTRY Clients;
    LIST_ENTRY Outstanding;             /* received by the server, not replied to yet */
    ULONG NextId;
    ULONG NameLength;
    UCHAR Name[MSG_MAX_NAME];
} PORT, *PPORT;

typedef struct _ENDPOINT {
    LONG References;
    ROLE Role;
    BOOLEAN Closing;
    PPORT Port;
    LIST_ENTRY PortLink;                /* a client's, in the port's Clients */
    LIST_ENTRY Inbox;
    ULONG Queued;
    ULONG Dropped;
    LIST_ENTRY Waiting;                 /* IRPs of IOCTL_MSG_RECEIVE */
} ENDPOINT, *PENDPOINT;

typedef struct _MESSAGE {
    LIST_ENTRY Link;
    PENDPOINT Sender;                   /* of a request that wants a reply */
    ULONG Id;
    ULONG Cookie;
    BOOLEAN IsReply;
    ULONG Length;
    UCHAR Body[1];
} MESSAGE, *PMESSAGE;

static PDEVICE_OBJECT MsgDevice;
static KSPIN_LOCK MsgLock;              /* guards everything below and all endpoints, ports and queues */
static LIST_ENTRY MsgPorts;

static NTSTATUS MsgComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* References: called with MsgLock held. */

static VOID EndpointRelease(PENDPOINT Endpoint)
{
    if (--Endpoint->References == 0) ExFreePoolWithTag(Endpoint, MSG_TAG);
}

static VOID PortRelease(PPORT Port)
{
    if (--Port->References == 0) ExFreePoolWithTag(Port, MSG_TAG);
}

static PPORT PortFind(const UCHAR *Name, ULONG Length)
{
    PLIST_ENTRY e;
    for (e = MsgPorts.Flink; e != &MsgPorts; e = e->Flink) {
        PPORT port = CONTAINING_RECORD(e, PORT, Link);
        if (port->NameLength == Length && RtlCompareMemory(port->Name, Name, Length) == Length) return port;
    }
    return NULL;
}

/* Messages */

static PMESSAGE MessageMake(ULONG Cookie, const VOID *Body, ULONG Length)
{
    PMESSAGE m = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(MESSAGE, Body) + Length, MSG_TAG);
    if (!m) return NULL;
    m->Sender = NULL;
    m->Id = 0;
    m->Cookie = Cookie;
    m->IsReply = FALSE;
    m->Length = Length;
    RtlCopyMemory(m->Body, Body, Length);
    return m;
}

/* With MsgLock held. */
static VOID MessageFree(PMESSAGE Message)
{
#ifdef FIXED
    if (Message->Sender) EndpointRelease(Message->Sender);
#endif
    ExFreePoolWithTag(Message, MSG_TAG);
}

static ULONG MessageSize(PMESSAGE Message)
{
    return sizeof(RECEIVED_HEADER) + Message->Length;
}

static VOID MessageCopyOut(PMESSAGE Message, PVOID Buffer)
{
    RECEIVED_HEADER *header = Buffer;
    header->Id = Message->Id;
    header->Cookie = Message->Cookie;
    header->Length = Message->Length;
    header->IsReply = Message->IsReply;
    RtlCopyMemory(header + 1, Message->Body, Message->Length);
}

/* A message has been handed out: requests that want a reply are kept until that comes. With MsgLock held. */
static VOID MessageDelivered(PENDPOINT To, PMESSAGE Message)
{
    if (Message->Sender && To->Role == RoleServer) InsertTailList(&To->Port->Outstanding, &Message->Link);
    else MessageFree(Message);
}

/* Waiting receives */

static VOID NTAPI MsgCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&MsgLock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&MsgLock, irql);
    MsgComplete(Irp, STATUS_CANCELLED, 0);
}

/* Takes the oldest waiting receive that is not being cancelled. With MsgLock held. */
static PIRP TakeWaiting(PENDPOINT Endpoint)
{
    while (!IsListEmpty(&Endpoint->Waiting)) {
        PLIST_ENTRY e = RemoveHeadList(&Endpoint->Waiting);
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        InitializeListHead(e);                      /* its cancel routine may still unlink it */
        if (IoSetCancelRoutine(irp, NULL)) return irp;
    }
    return NULL;
}

/* Puts a message in an inbox, or straight into the receives that wait. Receives to complete go to Done. With MsgLock held. */
static NTSTATUS Deliver(PENDPOINT To, PMESSAGE Message, PLIST_ENTRY Done)
{
    PIRP irp;

    while ((irp = TakeWaiting(To)) != NULL) {
        ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength;
        ULONG size = MessageSize(Message);
        InsertTailList(Done, &irp->Tail.Overlay.ListEntry);
        if (room < size) {
            irp->IoStatus.Status = STATUS_BUFFER_TOO_SMALL;
            irp->IoStatus.Information = 0;
            continue;
        }
        MessageCopyOut(Message, irp->AssociatedIrp.SystemBuffer);
        irp->IoStatus.Status = STATUS_SUCCESS;
        irp->IoStatus.Information = size;
        MessageDelivered(To, Message);
        return STATUS_SUCCESS;
    }
    if (To->Queued >= MSG_MAX_QUEUED) {
        To->Dropped++;
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    InsertTailList(&To->Inbox, &Message->Link);
    To->Queued++;
    return STATUS_SUCCESS;
}

static VOID CompleteAll(PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry);
        IoCompleteRequest(irp, IO_NO_INCREMENT);
    }
}

/* Requests */

static NTSTATUS MsgServe(PENDPOINT Endpoint, const UCHAR *Name, ULONG Length)
{
    NTSTATUS status = STATUS_SUCCESS;
    PPORT port;
    KIRQL irql;

    if (Length == 0 || Length > MSG_MAX_NAME) return STATUS_INVALID_PARAMETER;
    port = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(PORT), MSG_TAG);
    if (!port) return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(port, sizeof(*port));
    InitializeListHead(&port->Outstanding);
    InitializeListHead(&port->Clients);
    port->References = 1;
    port->Server = Endpoint;
    port->NextId = 1;
    port->NameLength = Length;
    RtlCopyMemory(port->Name, Name, Length);

    KeAcquireSpinLock(&MsgLock, &irql);
    if (Endpoint->Role != RoleNone || Endpoint->Closing) status = STATUS_INVALID_DEVICE_STATE;
    else if (PortFind(Name, Length)) status = STATUS_OBJECT_NAME_COLLISION;
    else {
        Endpoint->Role = RoleServer;
        Endpoint->Port = port;
        InsertTailList(&MsgPorts, &port->Link);
        port = NULL;
    }
    KeReleaseSpinLock(&MsgLock, irql);
    if (port) ExFreePoolWithTag(port, MSG_TAG);
    return status;
}

static NTSTATUS MsgConnect(PENDPOINT Endpoint, const UCHAR *Name, ULONG Length)
{
    NTSTATUS status = STATUS_SUCCESS;
    PPORT port;
    KIRQL irql;

    if (Length == 0 || Length > MSG_MAX_NAME) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&MsgLock, &irql);
    port = PortFind(Name, Length);
    if (Endpoint->Role != RoleNone || Endpoint->Closing) status = STATUS_INVALID_DEVICE_STATE;
    else if (!port) status = STATUS_OBJECT_NAME_NOT_FOUND;
    else {
        port->References++;
        Endpoint->Role = RoleClient;
        Endpoint->Port = port;
        InsertTailList(&port->Clients, &Endpoint->PortLink);
    }
    KeReleaseSpinLock(&MsgLock, irql);
    return status;
}

static NTSTATUS MsgPost(PENDPOINT Endpoint, const VOID *Buffer, ULONG Length)
{
    const POST_HEADER *header = Buffer;
    NTSTATUS status;
    PMESSAGE m;
    LIST_ENTRY done;
    KIRQL irql;

    if (Length < sizeof(*header) || Length - sizeof(*header) > MSG_MAX_BODY || (header->Flags & ~POST_WANTS_REPLY))
        return STATUS_INVALID_PARAMETER;
    m = MessageMake(header->Cookie, header + 1, Length - sizeof(*header));
    if (!m) return STATUS_INSUFFICIENT_RESOURCES;

    InitializeListHead(&done);
    KeAcquireSpinLock(&MsgLock, &irql);
    if (Endpoint->Role != RoleClient || Endpoint->Closing) status = STATUS_INVALID_DEVICE_STATE;
    else if (!Endpoint->Port->Server) status = STATUS_PORT_DISCONNECTED;
    else {
        if (header->Flags & POST_WANTS_REPLY) {
            m->Sender = Endpoint;
#ifdef FIXED
            Endpoint->References++;
#endif
        }
        m->Id = Endpoint->Port->NextId++;
        status = Deliver(Endpoint->Port->Server, m, &done);
    }
    if (!NT_SUCCESS(status)) MessageFree(m);
    KeReleaseSpinLock(&MsgLock, irql);
    CompleteAll(&done);
    return status;
}

static NTSTATUS MsgReceive(PENDPOINT Endpoint, PIRP Irp, ULONG Room)
{
    NTSTATUS status;
    ULONG size = 0;
    KIRQL irql;

    if (Room < sizeof(RECEIVED_HEADER)) return MsgComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&MsgLock, &irql);
    if (Endpoint->Role == RoleNone || Endpoint->Closing) status = STATUS_INVALID_DEVICE_STATE;
    else if (!IsListEmpty(&Endpoint->Inbox)) {
        PMESSAGE m = CONTAINING_RECORD(Endpoint->Inbox.Flink, MESSAGE, Link);
        size = MessageSize(m);
        if (Room < size) {
            status = STATUS_BUFFER_TOO_SMALL;
            size = 0;
        } else {
            RemoveEntryList(&m->Link);
            Endpoint->Queued--;
            MessageCopyOut(m, Irp->AssociatedIrp.SystemBuffer);
            MessageDelivered(Endpoint, m);
            status = STATUS_SUCCESS;
        }
    } else if (Endpoint->Role == RoleClient && !Endpoint->Port->Server) status = STATUS_PORT_DISCONNECTED;
    else {
        IoMarkIrpPending(Irp);
        InsertTailList(&Endpoint->Waiting, &Irp->Tail.Overlay.ListEntry);
        IoSetCancelRoutine(Irp, MsgCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
            RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
            KeReleaseSpinLock(&MsgLock, irql);
            MsgComplete(Irp, STATUS_CANCELLED, 0);
            return STATUS_PENDING;
        }
        KeReleaseSpinLock(&MsgLock, irql);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&MsgLock, irql);
    return MsgComplete(Irp, status, size);
}

static NTSTATUS MsgReply(PENDPOINT Endpoint, const VOID *Buffer, ULONG Length)
{
    const REPLY_HEADER *header = Buffer;
    NTSTATUS status = STATUS_NOT_FOUND;
    PMESSAGE reply;
    LIST_ENTRY done, *e;
    KIRQL irql;

    if (Length < sizeof(*header) || Length - sizeof(*header) > MSG_MAX_BODY) return STATUS_INVALID_PARAMETER;
    reply = MessageMake(0, header + 1, Length - sizeof(*header));
    if (!reply) return STATUS_INSUFFICIENT_RESOURCES;
    reply->IsReply = TRUE;
    reply->Id = header->Id;

    InitializeListHead(&done);
    KeAcquireSpinLock(&MsgLock, &irql);
    if (Endpoint->Role != RoleServer || Endpoint->Closing) status = STATUS_INVALID_DEVICE_STATE;
    else for (e = Endpoint->Port->Outstanding.Flink; e != &Endpoint->Port->Outstanding; e = e->Flink) {
        PMESSAGE request = CONTAINING_RECORD(e, MESSAGE, Link);
        if (request->Id != header->Id) continue;
        reply->Cookie = request->Cookie;
        if (request->Sender->Closing) status = STATUS_PORT_DISCONNECTED;
        else status = Deliver(request->Sender, reply, &done);
        if (NT_SUCCESS(status)) reply = NULL;
        if (status != STATUS_INSUFFICIENT_RESOURCES) {      /* else it can be replied to later */
            RemoveEntryList(&request->Link);
            MessageFree(request);
        }
        break;
    }
    if (reply) MessageFree(reply);
    KeReleaseSpinLock(&MsgLock, irql);
    CompleteAll(&done);
    return status;
}

static VOID MsgStatus(PENDPOINT Endpoint, PORT_STATUS *Status)
{
    KIRQL irql;
    PLIST_ENTRY e;

    RtlZeroMemory(Status, sizeof(*Status));
    KeAcquireSpinLock(&MsgLock, &irql);
    Status->Role = Endpoint->Role;
    Status->Queued = Endpoint->Queued;
    Status->Dropped = Endpoint->Dropped;
    if (Endpoint->Role == RoleServer && Endpoint->Port)
        for (e = Endpoint->Port->Outstanding.Flink; e != &Endpoint->Port->Outstanding; e = e->Flink) Status->Outstanding++;
    KeReleaseSpinLock(&MsgLock, irql);
}

static NTSTATUS NTAPI MsgDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PENDPOINT endpoint = sp->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    UNREFERENCED_PARAMETER(Device);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MSG_SERVE:
        return MsgComplete(Irp, MsgServe(endpoint, buffer, in), 0);
    case IOCTL_MSG_CONNECT:
        return MsgComplete(Irp, MsgConnect(endpoint, buffer, in), 0);
    case IOCTL_MSG_POST:
        return MsgComplete(Irp, MsgPost(endpoint, buffer, in), 0);
    case IOCTL_MSG_RECEIVE:
        return MsgReceive(endpoint, Irp, out);
    case IOCTL_MSG_REPLY:
        return MsgComplete(Irp, MsgReply(endpoint, buffer, in), 0);
    case IOCTL_MSG_STATUS:
        if (out < sizeof(PORT_STATUS)) return MsgComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        MsgStatus(endpoint, buffer);
        return MsgComplete(Irp, STATUS_SUCCESS, sizeof(PORT_STATUS));
    default:
        return MsgComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI MsgCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PENDPOINT endpoint = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(ENDPOINT), MSG_TAG);
    UNREFERENCED_PARAMETER(Device);

    if (!endpoint) return MsgComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(endpoint, sizeof(*endpoint));
    endpoint->References = 1;
    InitializeListHead(&endpoint->Inbox);
    InitializeListHead(&endpoint->Waiting);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = endpoint;
    return MsgComplete(Irp, STATUS_SUCCESS, FILE_OPENED);
}

/* A server's clients learn that it has gone by their receives. With MsgLock held. */
static VOID ServerGone(PPORT Port, PLIST_ENTRY Done)
{
    PLIST_ENTRY e;
    PIRP irp;

    RemoveEntryList(&Port->Link);
    Port->Server = NULL;
    while (!IsListEmpty(&Port->Outstanding)) MessageFree(CONTAINING_RECORD(RemoveHeadList(&Port->Outstanding), MESSAGE, Link));
    for (e = Port->Clients.Flink; e != &Port->Clients; e = e->Flink)
        while ((irp = TakeWaiting(CONTAINING_RECORD(e, ENDPOINT, PortLink))) != NULL) {
            irp->IoStatus.Status = STATUS_PORT_DISCONNECTED;
            irp->IoStatus.Information = 0;
            InsertTailList(Done, &irp->Tail.Overlay.ListEntry);
        }
}

static NTSTATUS NTAPI MsgCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PENDPOINT endpoint = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    LIST_ENTRY done;
    PIRP waiting;
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);

    InitializeListHead(&done);
    KeAcquireSpinLock(&MsgLock, &irql);
    endpoint->Closing = TRUE;
    while ((waiting = TakeWaiting(endpoint)) != NULL) {
        waiting->IoStatus.Status = STATUS_CANCELLED;
        waiting->IoStatus.Information = 0;
        InsertTailList(&done, &waiting->Tail.Overlay.ListEntry);
    }
    while (!IsListEmpty(&endpoint->Inbox)) MessageFree(CONTAINING_RECORD(RemoveHeadList(&endpoint->Inbox), MESSAGE, Link));
    endpoint->Queued = 0;
    if (endpoint->Role == RoleServer) ServerGone(endpoint->Port, &done);
    if (endpoint->Role == RoleClient) RemoveEntryList(&endpoint->PortLink);
    if (endpoint->Port) {
        PortRelease(endpoint->Port);
        endpoint->Port = NULL;
    }
    KeReleaseSpinLock(&MsgLock, irql);
    CompleteAll(&done);
    return MsgComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MsgClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PENDPOINT endpoint = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);

    KeAcquireSpinLock(&MsgLock, &irql);
    EndpointRelease(endpoint);
    KeReleaseSpinLock(&MsgLock, irql);
    return MsgComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI MsgUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\MsgPort");
    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(MsgDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\MsgPort"), link = RTL_CONSTANT_STRING(L"\\DosDevices\\MsgPort");
    NTSTATUS status;
    UNREFERENCED_PARAMETER(RegistryPath);

    KeInitializeSpinLock(&MsgLock);
    InitializeListHead(&MsgPorts);
    status = IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &MsgDevice);
    if (!NT_SUCCESS(status)) return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(MsgDevice);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = MsgCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MsgCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = MsgClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MsgDeviceControl;
    Driver->DriverUnload = MsgUnload;
    MsgDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
