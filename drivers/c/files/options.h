/* How a file is opened and used. Pages: ZwCreateFile function, ZwReadFile function, FILE_OBJECT structure, IRP_MJ_CLEANUP,
 * Synchronous and Asynchronous I/O. */
#include "files.h"

static ULONG Options(VOID)
{
    const ULONG Flags = FO_SYNCHRONOUS_IO | FO_ALERTABLE_IO | FO_WRITE_THROUGH | FO_NO_INTERMEDIATE_BUFFERING |
                        FO_SEQUENTIAL_ONLY | FO_RANDOM_ACCESS;
    OBJECT_ATTRIBUTES Attributes;
    LARGE_INTEGER Size = {.QuadPart = 0x123456789};
    LARGE_INTEGER Offset = {.QuadPart = 0};
    IO_STATUS_BLOCK Block;
    UCHAR Bytes[4] = {0, 0, 0, 0};
    ULONG Key = 0x4B657921;
    HANDLE Handle;

    CHECK(OpenLower(&Handle, GENERIC_READ | SYNCHRONIZE, FILE_SYNCHRONOUS_IO_ALERT | FILE_WRITE_THROUGH |
                    FILE_SEQUENTIAL_ONLY) == STATUS_SUCCESS);
    CHECK((Saw.FileFlags & Flags) == (FO_SYNCHRONOUS_IO | FO_ALERTABLE_IO | FO_WRITE_THROUGH | FO_SEQUENTIAL_ONLY));
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    CHECK(OpenLower(&Handle, GENERIC_READ, FILE_NO_INTERMEDIATE_BUFFERING | FILE_RANDOM_ACCESS) == STATUS_SUCCESS);
    CHECK((Saw.FileFlags & Flags) == (FO_NO_INTERMEDIATE_BUFFERING | FO_RANDOM_ACCESS));
    CHECK(ZwReadFile(Handle, NULL, NULL, NULL, &Block, Bytes, 4, &Offset, &Key) == STATUS_SUCCESS);
    CHECK(Saw.Location.Parameters.Read.Key == Key);
    CHECK(ZwWriteFile(Handle, NULL, NULL, NULL, &Block, Bytes, 4, &Offset, &Key) == STATUS_SUCCESS);
    CHECK(Saw.Location.Parameters.Write.Key == Key);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    InitializeObjectAttributes(&Attributes, &LowerName, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(IoCreateFile(&Handle, GENERIC_READ, &Attributes, &Block, &Size, 0, 0, FILE_OPEN_IF, 0, NULL, 0,
                       CreateFileTypeNone, NULL, IO_FORCE_ACCESS_CHECK) == STATUS_SUCCESS);
    CHECK(Saw.Allocation == Size.QuadPart && Saw.Location.Flags == SL_FORCE_ACCESS_CHECK);
    CHECK(Saw.Location.Parameters.Create.Options >> 24 == FILE_OPEN_IF);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    return 0;
}

/* A file that is not synchronous has no position to read at. */
static ULONG Offsets(VOID)
{
    LARGE_INTEGER Offset = {.QuadPart = 5};
    IO_STATUS_BLOCK Block;
    UCHAR Bytes[4];
    HANDLE Handle;

    CHECK(OpenLower(&Handle, GENERIC_READ | GENERIC_WRITE, 0) == STATUS_SUCCESS);
    CHECK(ZwReadFile(Handle, NULL, NULL, NULL, &Block, Bytes, 4, NULL, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(ZwWriteFile(Handle, NULL, NULL, NULL, &Block, Bytes, 4, NULL, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(ZwReadFile(Handle, NULL, NULL, NULL, &Block, Bytes, 4, &Offset, NULL) == STATUS_SUCCESS);
    CHECK(Saw.Location.Parameters.Read.ByteOffset.QuadPart == 5);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    return 0;
}

/* No bytes need no buffer, but the request is a buffered one. */
static ULONG EmptyTransfers(VOID)
{
    const ULONG Flags = IRP_BUFFERED_IO | IRP_INPUT_OPERATION | IRP_DEALLOCATE_BUFFER;
    LARGE_INTEGER Offset = {.QuadPart = 0};
    IO_STATUS_BLOCK Block;
    HANDLE Handle;

    CHECK(OpenLower(&Handle, GENERIC_READ | GENERIC_WRITE, 0) == STATUS_SUCCESS);
    CHECK(ZwReadFile(Handle, NULL, NULL, NULL, &Block, NULL, 0, &Offset, NULL) == STATUS_SUCCESS);
    CHECK(Saw.SystemBuffer == NULL && (Saw.IrpFlags & Flags) == (IRP_BUFFERED_IO | IRP_INPUT_OPERATION));
    CHECK(ZwWriteFile(Handle, NULL, NULL, NULL, &Block, NULL, 0, &Offset, NULL) == STATUS_SUCCESS);
    CHECK(Saw.SystemBuffer == NULL && (Saw.IrpFlags & Flags) == IRP_BUFFERED_IO);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    return 0;
}

typedef struct _READER {
    HANDLE Handle;
    NTSTATUS Status;
    LONG CleanupsBefore;
} READER;

static VOID NTAPI ReadAndWait(PVOID Context)
{
    LARGE_INTEGER Offset = {.QuadPart = 77};
    READER *Reader = Context;
    IO_STATUS_BLOCK Block;
    UCHAR Bytes[4];

    Reader->Status = ZwReadFile(Reader->Handle, NULL, NULL, NULL, &Block, Bytes, 4, &Offset, NULL);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI LetGo(PVOID Context)
{
    LARGE_INTEGER Pause = {.QuadPart = -50000}; /* 5 ms, in which the handle is being closed */
    READER *Reader = Context;

    KeDelayExecutionThread(KernelMode, FALSE, &Pause);
    Reader->CleanupsBefore = Cleanups;
    Complete(Held, STATUS_SUCCESS, 0);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static PVOID StartThread(VOID (NTAPI *Routine)(PVOID), PVOID Context)
{
    OBJECT_ATTRIBUTES Attributes;
    PVOID Thread = NULL;
    HANDLE Handle;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Routine, Context) != STATUS_SUCCESS) {
        return NULL;
    }
    ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, OBJECT_TYPE_OF(PsThreadType), KernelMode, &Thread, NULL);
    ZwClose(Handle);
    return Thread;
}

static VOID Join(PVOID Thread)
{
    KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Thread);
}

/* A synchronous file does one request at a time, and its cleanup is one. */
static ULONG CleanupComesLater(VOID)
{
    READER Reader = {NULL, STATUS_UNSUCCESSFUL, -1};
    PVOID First, Second;

    CHECK(OpenLower(&Reader.Handle, GENERIC_READ | SYNCHRONIZE, FILE_SYNCHRONOUS_IO_NONALERT) == STATUS_SUCCESS);
    KeClearEvent(&Arrived);
    Cleanups = 0;
    First = StartThread(ReadAndWait, &Reader);
    CHECK(First != NULL);
    KeWaitForSingleObject(&Arrived, Executive, KernelMode, FALSE, NULL);
    Second = StartThread(LetGo, &Reader);
    CHECK(Second != NULL);
    CHECK(ZwClose(Reader.Handle) == STATUS_SUCCESS);
    CHECK(Cleanups == 1);
    Join(First);
    Join(Second);
    CHECK(Reader.Status == STATUS_SUCCESS && Reader.CleanupsBefore == 0);
    return 0;
}
