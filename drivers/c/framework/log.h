/*
 * A client's log: what the framework has to say of it, in a page of memory that is written round. Of Microsoft's published framework it has the layout
 * (fxifr.h) and the pool tag; the messages are its own.
 */
#ifndef FRAMEWORK_LOG_H
#define FRAMEWORK_LOG_H

#define LOG_TAG 'gLxF'
#define LOG_BYTES PAGE_SIZE
#define RECORD_SIGNATURE 0x524C

enum { CLIENT_IS_BOUND = 10, DRIVER_IS_CREATED, DEVICE_IS_CREATED, QUEUE_IS_CREATED };

typedef struct _LOG {
    GUID Guid;
    PUCHAR Base;
    ULONG Size;
    USHORT Current, Previous; /* where the next record goes, and where the newest is */
    LONG Sequence;
    CHAR DriverName[32];
} LOG;

typedef struct _RECORD {
    USHORT Signature;
    USHORT Length;
    LONG Sequence;
    USHORT Previous;
    USHORT Number;
    GUID Guid;
} RECORD;

static const GUID LogGuid = {0x544d4c9d, 0x942c, 0x46d5, {0xbf, 0x50, 0xdf, 0x5c, 0xd9, 0x52, 0x4a, 0x50}};
static const GUID MessagesGuid = {0x7d1f0c52, 0x3a64, 0x4b0e, {0x9c, 0x11, 0x5e, 0x20, 0x6b, 0x8f, 0x41, 0xd3}};

/* Nothing is logged where there is no memory for it. */
static VOID StartLog(CLIENT *Client)
{
    LOG *Log = ExAllocatePoolWithTag(NonPagedPool, LOG_BYTES, LOG_TAG);

    if (Log == NULL) {
        return;
    }
    RtlZeroMemory(Log, LOG_BYTES);
    Log->Guid = LogGuid;
    Log->Base = (PUCHAR)(Log + 1);
    Log->Size = LOG_BYTES - sizeof(*Log);
    RtlCopyMemory(Log->DriverName, Client->Globals.DriverName, sizeof(Log->DriverName));
    Client->Log = Log;
}

static VOID StopLog(CLIENT *Client)
{
    if (Client->Log != NULL) {
        ExFreePoolWithTag(Client->Log, LOG_TAG);
        Client->Log = NULL;
    }
}

/* A message with one argument. */
static VOID Note(CLIENT *Client, USHORT Number, ULONG Argument)
{
    LOG *Log = Client->Log;
    RECORD *Record;
    USHORT Length = sizeof(*Record) + sizeof(Argument), At;
    KIRQL Irql;

    if (Log == NULL) {
        return;
    }
    KeAcquireSpinLock(&Client->Lock, &Irql);
    At = Log->Current + Length > Log->Size ? 0 : Log->Current;
    Record = (RECORD *)(Log->Base + At);
    *Record = (RECORD){RECORD_SIGNATURE, Length, ++Log->Sequence, Log->Previous, Number, MessagesGuid};
    *(ULONG *)(Record + 1) = Argument;
    Log->Previous = At;
    Log->Current = At + Length;
    KeReleaseSpinLock(&Client->Lock, Irql);
}

#endif
