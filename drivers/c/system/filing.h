/* Stories of files that are asked of themselves; the driver answers for its own device: a name, and an end that can be set. */
#include "system.h"

NTSYSAPI NTSTATUS NTAPI ZwFlushBuffersFile(HANDLE File, PIO_STATUS_BLOCK Status);

static LARGE_INTEGER EndOfTheFile;
static ULONG ClassesAsked; /* bits of what the driver was asked for */

static NTSTATUS NTAPI DispatchQuery(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Class = Stack->Parameters.QueryFile.FileInformationClass, Length = Stack->Parameters.QueryFile.Length;

    UNREFERENCED_PARAMETER(Device);
    ClassesAsked |= 1 << Class;
    if (Class == FileStandardInformation) {
        FILE_STANDARD_INFORMATION *Answer = Irp->AssociatedIrp.SystemBuffer;

        if (Length < sizeof(*Answer)) {
            return Complete(Irp, STATUS_INFO_LENGTH_MISMATCH, 0);
        }
        RtlZeroMemory(Answer, sizeof(*Answer));
        Answer->EndOfFile = EndOfTheFile;
        return Complete(Irp, STATUS_SUCCESS, sizeof(*Answer));
    }
    return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
}

static NTSTATUS NTAPI DispatchSet(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    ClassesAsked |= 1 << Stack->Parameters.SetFile.FileInformationClass;
    if (Stack->Parameters.SetFile.FileInformationClass != FileEndOfFileInformation) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (Stack->Parameters.SetFile.Length != sizeof(LARGE_INTEGER)) {
        return Complete(Irp, STATUS_INFO_LENGTH_MISMATCH, 0);
    }
    EndOfTheFile = *(PLARGE_INTEGER)Irp->AssociatedIrp.SystemBuffer;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static ULONG Flushes;

static NTSTATUS NTAPI DispatchFlush(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Flushes++;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static ULONG FilesTellOfThemselves(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlSystem");
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Status;
    HANDLE File, Loose;
    LARGE_INTEGER Value = {.QuadPart = 77};
    FILE_STANDARD_INFORMATION Standard;
    ULONG Mode = 0, Access = 0, Alignment = 1;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwCreateFile(&File, FILE_READ_DATA | SYNCHRONIZE, &Attributes, &Status, NULL, 0, FILE_SHARE_READ, FILE_OPEN,
                       FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0) == STATUS_SUCCESS);
    CHECK(ZwCreateFile(&Loose, FILE_READ_DATA, &Attributes, &Status, NULL, 0, FILE_SHARE_READ, FILE_OPEN, 0, NULL, 0) ==
          STATUS_SUCCESS);

    /* What the I/O manager knows by itself. */
    CHECK(ZwSetInformationFile(File, &Status, &Value, sizeof(Value), FilePositionInformation) == STATUS_SUCCESS);
    Value.QuadPart = 0;
    CHECK(ZwQueryInformationFile(File, &Status, &Value, 7, FilePositionInformation) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(ZwQueryInformationFile(File, &Status, &Value, sizeof(Value), FilePositionInformation) == STATUS_SUCCESS);
    CHECK(Value.QuadPart == 77 && Status.Information == sizeof(Value) && Status.Status == STATUS_SUCCESS);
    Value.QuadPart = -1;
    CHECK(ZwSetInformationFile(File, &Status, &Value, sizeof(Value), FilePositionInformation) == STATUS_INVALID_PARAMETER);
    CHECK(ZwQueryInformationFile(File, &Status, &Mode, sizeof(Mode), FileModeInformation) == STATUS_SUCCESS);
    CHECK(Mode == FILE_SYNCHRONOUS_IO_NONALERT);
    CHECK(ZwQueryInformationFile(Loose, &Status, &Mode, sizeof(Mode), FileModeInformation) == STATUS_SUCCESS && Mode == 0);
    CHECK(ZwQueryInformationFile(File, &Status, &Access, sizeof(Access), FileAccessInformation) == STATUS_SUCCESS);
    CHECK((Access & FILE_READ_DATA) != 0 && (Access & FILE_WRITE_DATA) == 0);
    CHECK(ZwQueryInformationFile(File, &Status, &Alignment, sizeof(Alignment), FileAlignmentInformation) == STATUS_SUCCESS);
    CHECK(Alignment == TheDriver->DeviceObject->AlignmentRequirement && ClassesAsked == 0);

    /* What its driver knows; a file without a position of its own is the driver's, too. */
    Value.QuadPart = 0x123456789;
    CHECK(ZwSetInformationFile(File, &Status, &Value, sizeof(Value), FileEndOfFileInformation) == STATUS_SUCCESS);
    CHECK(ZwQueryInformationFile(File, &Status, &Standard, sizeof(Standard), FileStandardInformation) == STATUS_SUCCESS);
    CHECK(Standard.EndOfFile.QuadPart == Value.QuadPart && Status.Information == sizeof(Standard));
    CHECK(ZwQueryInformationFile(File, &Status, &Standard, 8, FileStandardInformation) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(ZwQueryInformationFile(Loose, &Status, &Value, sizeof(Value), FilePositionInformation) == STATUS_INVALID_PARAMETER);
    CHECK(ClassesAsked == (1 << FileEndOfFileInformation | 1 << FileStandardInformation | 1 << FilePositionInformation));
    CHECK(ZwQueryInformationFile((HANDLE)0x1234, &Status, &Value, 8, FilePositionInformation) == STATUS_INVALID_HANDLE);
    CHECK(ZwFlushBuffersFile(File, &Status) == STATUS_SUCCESS && Flushes == 1 && Status.Status == STATUS_SUCCESS);
    ZwClose(Loose);
    ZwClose(File);
    return 0;
}
