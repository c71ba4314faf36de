/* Opening a device, and what its driver sees of who opens it. Pages: IoBuildDeviceIoControlRequest function, ZwReadFile
 * function, ACCESS_STATE structure, ZwCreateFile function, FILE_FULL_EA_INFORMATION structure. */
#include "files.h"

/* Sends a control code of this method with these buffers; FALSE if the request could not be built. */
static BOOLEAN SendWith(ULONG Method, PVOID Input, ULONG InputLength, PVOID Output, ULONG OutputLength)
{
    IO_STATUS_BLOCK Block;
    KEVENT Event;
    PIRP Irp;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(LOWER_CODE(Method), Lower, Input, InputLength, Output, OutputLength, FALSE,
                                        &Event, &Block);
    return Irp != NULL && IoCallDriver(Lower, Irp) == STATUS_SUCCESS;
}

/* A buffer is there if its pointer is not null; its length reaches the driver all the same. */
static ULONG NullBuffers(VOID)
{
    UCHAR Bytes[4] = {1, 2, 3, 4};

    CHECK(SendWith(METHOD_BUFFERED, NULL, 8, NULL, 0));
    CHECK(Saw.SystemBuffer != NULL && Saw.Location.Parameters.DeviceIoControl.InputBufferLength == 8);
    CHECK(SendWith(METHOD_BUFFERED, Bytes, 4, NULL, 16));
    CHECK(Saw.UserBuffer == NULL && Saw.Bytes[3] == 4);
    CHECK(Saw.Location.Parameters.DeviceIoControl.OutputBufferLength == 16);
    CHECK((Saw.IrpFlags & (IRP_BUFFERED_IO | IRP_INPUT_OPERATION)) == IRP_BUFFERED_IO);
    CHECK(SendWith(METHOD_OUT_DIRECT, NULL, 8, NULL, 16));
    CHECK(Saw.SystemBuffer == NULL && Saw.Mdl == NULL);
    CHECK(SendWith(METHOD_IN_DIRECT, Bytes, 4, NULL, 16));
    CHECK(Saw.SystemBuffer != NULL && Saw.Mdl == NULL);
    return 0;
}

/* What a handle was opened for binds applications, not the driver that opened it. */
static ULONG AccessOfHandles(VOID)
{
    LARGE_INTEGER Offset = {.QuadPart = 0};
    IO_STATUS_BLOCK Block;
    UCHAR Bytes[4];
    HANDLE Handle;

    CHECK(OpenLower(&Handle, FILE_READ_ATTRIBUTES | SYNCHRONIZE, FILE_SYNCHRONOUS_IO_NONALERT) == STATUS_SUCCESS);
    CHECK(ZwReadFile(Handle, NULL, NULL, NULL, &Block, Bytes, 4, &Offset, NULL) == STATUS_SUCCESS);
    CHECK(ZwWriteFile(Handle, NULL, NULL, NULL, &Block, Bytes, 4, &Offset, NULL) == STATUS_SUCCESS);
    CHECK(ZwDeviceIoControlFile(Handle, NULL, NULL, NULL, &Block,
                                CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_DATA), NULL, 0, NULL,
                                0) == STATUS_SUCCESS);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    return 0;
}

/* The device's own descriptor is the I/O manager's to check, a name inside it the driver's. */
static ULONG AccessStates(VOID)
{
    UNICODE_STRING Inside = RTL_CONSTANT_STRING(L"\\Device\\DirqlFilesLower\\part");
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;
    HANDLE Handle;

    CHECK(OpenLower(&Handle, FILE_READ_DATA | SYNCHRONIZE, 0) == STATUS_SUCCESS);
    CHECK(Saw.Access == (FILE_READ_DATA | SYNCHRONIZE));
    CHECK(Saw.State.OriginalDesiredAccess == Saw.Access && Saw.State.PreviouslyGrantedAccess == Saw.Access);
    CHECK(Saw.State.RemainingDesiredAccess == 0);
    CHECK((ULONG_PTR)Saw.State.SubjectSecurityContext.ProcessAuditId != 0);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    InitializeObjectAttributes(&Attributes, &Inside, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwCreateFile(&Handle, FILE_WRITE_DATA, &Attributes, &Block, NULL, 0, 0, FILE_OPEN, 0, NULL, 0) ==
          STATUS_SUCCESS);
    CHECK(Saw.State.RemainingDesiredAccess == FILE_WRITE_DATA && Saw.State.PreviouslyGrantedAccess == 0);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    return 0;
}

/* As a client of a transport driver names its address. */
static ULONG ExtendedAttributes(VOID)
{
    union {
        FILE_FULL_EA_INFORMATION Entry;
        UCHAR Bytes[24];
    } List;
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block = {{0}, 0};
    HANDLE Handle;

    RtlZeroMemory(&List, sizeof(List));
    List.Entry.EaNameLength = 4;
    List.Entry.EaValueLength = 5;
    RtlCopyMemory(List.Entry.EaName, "Name\0value", 10);
    InitializeObjectAttributes(&Attributes, &LowerName, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwCreateFile(&Handle, GENERIC_READ, &Attributes, &Block, NULL, 0, 0, FILE_OPEN, 0, &List, 18) ==
          STATUS_SUCCESS);
    CHECK(Saw.Location.Parameters.Create.EaLength == 18 && Saw.SystemBuffer != NULL && Saw.SystemBuffer != &List);
    CHECK(RtlCompareMemory(Saw.Bytes, &List, 18) == 18);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    List.Entry.EaValueLength = 6; /* one byte more than there is */
    CHECK(ZwCreateFile(&Handle, GENERIC_READ, &Attributes, &Block, NULL, 0, 0, FILE_OPEN, 0, &List, 18) ==
          STATUS_EA_LIST_INCONSISTENT);
    List.Entry.EaValueLength = 1;
    List.Entry.NextEntryOffset = 16; /* the second has no room for its value */
    List.Bytes[16 + 5] = 2;
    List.Bytes[16 + 6] = 3;
    CHECK(ZwCreateFile(&Handle, GENERIC_READ, &Attributes, &Block, NULL, 0, 0, FILE_OPEN, 0, &List, 24) ==
          STATUS_EA_LIST_INCONSISTENT && Block.Information == 16);
    return 0;
}
