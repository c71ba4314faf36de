/* Handles and objects in kernel mode. Pages: ZwCreateFile function, ZwReadFile function, ZwDeviceIoControlFile
 * function, ObReferenceObjectByHandle function, ObOpenObjectByPointer function, ZwCreateEvent function,
 * IoCreateNotificationEvent function, PsCreateSystemThread function. */

static VOID CheckObject(REQUESTS_RESULT *Result, HANDLE Handle)
{
    PFILE_OBJECT File = NULL, Again = NULL;
    PVOID Wrong;
    HANDLE Second = NULL;

    CHECK_STATUS(ObReferenceObjectByHandle(Handle, 0, OBJECT_TYPE_OF(ExEventObjectType), KernelMode, &Wrong, NULL),
                 STATUS_OBJECT_TYPE_MISMATCH);
    if (!CHECK_STATUS(ObReferenceObjectByHandle(Handle, FILE_READ_DATA, OBJECT_TYPE_OF(IoFileObjectType), KernelMode,
                                                (PVOID *)&File, NULL), STATUS_SUCCESS)) {
        return;
    }
    CHECK(File->Type == IO_TYPE_FILE && File->DeviceObject == Lower);
    CHECK_STATUS(ObReferenceObjectByHandleWithTag(Handle, 0, NULL, KernelMode, REQUESTS_TAG, (PVOID *)&Again, NULL),
                 STATUS_SUCCESS);
    CHECK(Again == File);
    ObDereferenceObjectWithTag(Again, REQUESTS_TAG);
    CHECK_STATUS(ObReferenceObjectByPointer(File, 0, OBJECT_TYPE_OF(IoFileObjectType), KernelMode), STATUS_SUCCESS);
    ObReferenceObject(File);
    ObDereferenceObject(File);
    ObDereferenceObjectDeferDelete(File);
    CHECK_STATUS(ObReferenceObjectByPointerWithTag(File, 0, NULL, KernelMode, REQUESTS_TAG), STATUS_SUCCESS);
    ObReferenceObjectWithTag(File, REQUESTS_TAG);
    ObDereferenceObjectWithTag(File, REQUESTS_TAG);
    ObDereferenceObjectWithTag(File, REQUESTS_TAG);
    if (CHECK_STATUS(ObOpenObjectByPointer(File, OBJ_KERNEL_HANDLE, NULL, FILE_READ_DATA,
                                           OBJECT_TYPE_OF(IoFileObjectType), KernelMode, &Second), STATUS_SUCCESS)) {
        CHECK(Second != Handle);
        CHECK_STATUS(ZwClose(Second), STATUS_SUCCESS);
    }
    ObDereferenceObject(File);
}

static VOID CheckTransfers(REQUESTS_RESULT *Result, HANDLE Handle)
{
    PDEVICE_EXTENSION Extension = Lower->DeviceExtension;
    LARGE_INTEGER Offset = {.QuadPart = 40};
    IO_STATUS_BLOCK Block = {{-1}, 0};
    UCHAR Bytes[32];

    RtlZeroMemory(Bytes, sizeof(Bytes));
    CHECK_STATUS(ZwReadFile(Handle, NULL, NULL, NULL, &Block, Bytes, 32, &Offset, NULL), STATUS_SUCCESS);
    CHECK(Block.Information == 32 && Block.Status == STATUS_SUCCESS && Filled(Bytes, 32, 40));
    CHECK_STATUS(ZwReadFile(Handle, NULL, NULL, NULL, &Block, Bytes, 4, NULL, NULL), STATUS_SUCCESS);
    CHECK(Filled(Bytes, 4, 72)); /* the position of a synchronous file went on */
    CHECK_STATUS(ZwWriteFile(Handle, NULL, NULL, NULL, &Block, Bytes, 2, &Offset, NULL), STATUS_SUCCESS);
    CHECK(Block.Information == 2 && Extension->Sum == 72 + 73);
    CHECK_STATUS(ZwDeviceIoControlFile(Handle, NULL, NULL, NULL, &Block, IOCTL_LOWER_INVERT, Bytes, 2, Bytes + 8, 4),
                 STATUS_SUCCESS);
    CHECK(Block.Information == 2 && Bytes[8] == (UCHAR)~72 && Bytes[9] == (UCHAR)~73);
    CHECK_STATUS(ZwDeviceIoControlFile(Handle, NULL, NULL, NULL, &Block, REQUESTS_CODE(0x1FF), NULL, 0, NULL, 0),
                 STATUS_INVALID_DEVICE_REQUEST);
}

/* Opens what is called Name, of Length bytes; the driver has to see these bytes, and that they count from Root's file. */
static VOID CheckName(REQUESTS_RESULT *Result, HANDLE Root, const VOID *Name, USHORT Length, ULONG Options)
{
    PDEVICE_EXTENSION Extension = Lower->DeviceExtension;
    UNICODE_STRING String = {Length, Length, (PWSTR)Name};
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;
    PFILE_OBJECT File;
    HANDLE Handle;

    InitializeObjectAttributes(&Attributes, &String, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, Root, NULL);
    if (!CHECK_STATUS(ZwOpenFile(&Handle, GENERIC_READ | SYNCHRONIZE, &Attributes, &Block, 0,
                                 FILE_SYNCHRONOUS_IO_NONALERT | Options), STATUS_SUCCESS)) {
        return;
    }
    CHECK(Extension->NameLength == Length && RtlCompareMemory(Extension->Name, Name, Length) == Length);
    CHECK((Extension->CreateOptions & 0xFFFFFF) == (FILE_SYNCHRONOUS_IO_NONALERT | Options));
    if (CHECK_STATUS(ObReferenceObjectByHandle(Root, 0, OBJECT_TYPE_OF(IoFileObjectType), KernelMode, (PVOID *)&File,
                                               NULL), STATUS_SUCCESS)) {
        CHECK(Extension->Related == File && File->DeviceObject == Lower);
        ObDereferenceObject(File);
    }
    CHECK_STATUS(ZwClose(Handle), STATUS_SUCCESS);
}

/* What stands behind the device's name is for its driver to understand. */
static VOID CheckNames(REQUESTS_RESULT *Result, HANDLE Handle)
{
    static const WCHAR Inner[] = L"inner\\file";
    static const ULONGLONG Id = 0x00010000005C0003ULL; /* with a backslash and zeroes in it */
    UNICODE_STRING Behind = RTL_CONSTANT_STRING(L"\\Device\\DirqlRequestsLower\\a\\b");
    PDEVICE_EXTENSION Extension = Lower->DeviceExtension;
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;
    HANDLE Other;

    CheckName(Result, Handle, Inner, sizeof(Inner) - sizeof(WCHAR), 0);
    CheckName(Result, Handle, NULL, 0, 0);
    CheckName(Result, Handle, &Id, sizeof(Id), FILE_OPEN_BY_FILE_ID);
    InitializeObjectAttributes(&Attributes, &Behind, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (CHECK_STATUS(ZwOpenFile(&Other, GENERIC_READ | SYNCHRONIZE, &Attributes, &Block, 0,
                                FILE_SYNCHRONOUS_IO_NONALERT), STATUS_SUCCESS)) {
        CHECK(Extension->NameLength == 8 && RtlCompareMemory(Extension->Name, L"\\a\\b", 8) == 8);
        CHECK(Extension->Related == NULL);
        CHECK_STATUS(ZwClose(Other), STATUS_SUCCESS);
    }
}

static VOID CheckFiles(REQUESTS_RESULT *Result)
{
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;
    HANDLE Handle = NULL;

    InitializeObjectAttributes(&Attributes, &AbsentName, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    CHECK_STATUS(ZwCreateFile(&Handle, GENERIC_READ, &Attributes, &Block, NULL, 0, 0, FILE_OPEN, 0, NULL, 0),
                 STATUS_OBJECT_NAME_NOT_FOUND);
    InitializeObjectAttributes(&Attributes, &LowerName, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (CHECK_STATUS(ZwCreateFile(&Handle, GENERIC_READ | GENERIC_WRITE | SYNCHRONIZE, &Attributes, &Block, NULL, 0,
                                  FILE_SHARE_READ, FILE_OPEN, FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0),
                     STATUS_SUCCESS)) {
        CHECK((LONG_PTR)Handle < 0); /* a kernel handle */
        CheckTransfers(Result, Handle);
        CheckObject(Result, Handle);
        CheckNames(Result, Handle);
        CHECK_STATUS(ZwClose(Handle), STATUS_SUCCESS);
    }
    if (CHECK_STATUS(ZwOpenFile(&Handle, GENERIC_READ | SYNCHRONIZE, &Attributes, &Block, 0,
                                FILE_SYNCHRONOUS_IO_NONALERT), STATUS_SUCCESS)) {
        CHECK_STATUS(ObCloseHandle(Handle, KernelMode), STATUS_SUCCESS);
    }
    if (CHECK_STATUS(IoCreateFile(&Handle, GENERIC_READ | SYNCHRONIZE, &Attributes, &Block, NULL, 0, 0, FILE_OPEN,
                                  FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0, CreateFileTypeNone, NULL, 0),
                     STATUS_SUCCESS)) {
        CHECK_STATUS(ZwClose(Handle), STATUS_SUCCESS);
    }
}

static VOID CheckEvents(REQUESTS_RESULT *Result)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\DirqlRequests");
    UNICODE_STRING Other = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\DirqlRequestsOnce");
    LARGE_INTEGER Zero = {.QuadPart = 0};
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle = NULL, Again = NULL;
    PKEVENT Event, Same;
    LONG Before = -1;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (CHECK_STATUS(ZwCreateEvent(&Handle, EVENT_ALL_ACCESS, &Attributes, SynchronizationEvent, FALSE),
                     STATUS_SUCCESS)) {
        CHECK_STATUS(ZwWaitForSingleObject(Handle, FALSE, &Zero), STATUS_TIMEOUT);
        CHECK_STATUS(ZwSetEvent(Handle, &Before), STATUS_SUCCESS);
        CHECK(Before == 0);
        CHECK_STATUS(ZwSetEvent(Handle, &Before), STATUS_SUCCESS);
        CHECK(Before == 1);
        CHECK_STATUS(ZwWaitForSingleObject(Handle, FALSE, &Zero), STATUS_SUCCESS);
        CHECK_STATUS(ZwWaitForSingleObject(Handle, FALSE, &Zero), STATUS_TIMEOUT); /* the wait took it */
        CHECK_STATUS(ZwClose(Handle), STATUS_SUCCESS);
    }
    Event = IoCreateNotificationEvent(&Name, &Handle);
    if (CHECK(Event != NULL)) {
        CHECK(KeReadStateEvent(Event) != 0); /* signalled when new */
        KeClearEvent(Event);
        Same = IoCreateNotificationEvent(&Name, &Again);
        CHECK(Same == Event && Again != Handle && KeReadStateEvent(Same) == 0); /* the same, as it was */
        CHECK_STATUS(ZwClose(Again), STATUS_SUCCESS);
        CHECK_STATUS(ZwClose(Handle), STATUS_SUCCESS);
    }
    Event = IoCreateSynchronizationEvent(&Other, &Handle);
    if (CHECK(Event != NULL)) {
        CHECK_STATUS(KeWaitForSingleObject(Event, Executive, KernelMode, FALSE, &Zero), STATUS_SUCCESS);
        CHECK_STATUS(KeWaitForSingleObject(Event, Executive, KernelMode, FALSE, &Zero), STATUS_TIMEOUT);
        CHECK_STATUS(ZwClose(Handle), STATUS_SUCCESS);
    }
}

typedef struct _THREAD_SAW {
    PETHREAD Thread;
    HANDLE Id;
    BOOLEAN System;
} THREAD_SAW;

static VOID NTAPI ThreadRoutine(PVOID Context)
{
    THREAD_SAW *Saw = Context;

    Saw->Thread = PsGetCurrentThread();
    Saw->Id = PsGetCurrentThreadId();
    Saw->System = IoIsSystemThread(Saw->Thread);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID CheckThread(REQUESTS_RESULT *Result)
{
    OBJECT_ATTRIBUTES Attributes;
    THREAD_SAW Saw = {NULL, NULL, FALSE};
    HANDLE Handle = NULL;
    CLIENT_ID Client;
    PVOID Thread;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!CHECK_STATUS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, &Client, ThreadRoutine, &Saw),
                      STATUS_SUCCESS)) {
        return;
    }
    if (CHECK_STATUS(ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, OBJECT_TYPE_OF(PsThreadType), KernelMode,
                                               &Thread, NULL), STATUS_SUCCESS)) {
        CHECK_STATUS(KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL), STATUS_SUCCESS);
        CHECK(Saw.Thread == Thread && Saw.Id == Client.UniqueThread && Saw.System);
        CHECK(PsGetThreadId(Thread) == Client.UniqueThread && PsIsSystemThread(Thread)); /* it has ended */
        ObDereferenceObject(Thread);
    }
    CHECK_STATUS(ZwClose(Handle), STATUS_SUCCESS);
}

static VOID HandleFamily(REQUESTS_RESULT *Result, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    CheckFiles(Result);
    CheckEvents(Result);
    CheckThread(Result);
}
