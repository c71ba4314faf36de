/*
 * A music box: its METHOD_NEITHER input is a tune, words up to an end mark or the input's end. A copy is made of it before it is looked at.
 *
 * The bug: the length that the application claims is added to before it is compared, and the sum of one near 4 GiB is small: the tune is copied up to its end
 * mark, however far that is. It shows with such a length and a tune without an end mark.
 *
 * Device: none
 * Rule: wild-write, stack-overrun, bad-pointer
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\MusicBox"
#define LINK_NAME L"\\DosDevices\\MusicBox"
#include "../include/try.h"
#include "../include/legacy.h"

#define IOCTL_TUNE_CHECK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE1A, METHOD_NEITHER, FILE_ANY_ACCESS)
#define END_MARK 0xE0D0E0D0
#define NOTES 64

typedef struct _HEADER {
    ULONG Notes;
    ULONG Highest;
} HEADER, *PHEADER;

typedef struct _TUNE {
    HEADER Header;
    ULONG Notes[NOTES];
} TUNE, *PTUNE;

/* Called within __try: the input may go away at any time. The probe's length is the longest that is copied. */
__attribute__((noinline)) static NTSTATUS Check(const volatile ULONG *Input, ULONG Length)
{
    volatile TUNE Tune;
    ULONG Index, Word;

#ifdef FIXED
    if (Length > sizeof(Tune) - sizeof(HEADER)) {
#else
    ULONG Room = Length + sizeof(HEADER);

    if (Room > sizeof(Tune)) {
#endif
        return STATUS_INVALID_BUFFER_SIZE;
    }
    ProbeForRead((PVOID)Input, sizeof(Tune.Notes), 1);
    Tune.Header.Notes = 0;
    Tune.Header.Highest = 0;
    for (Index = 0; Index < Length / sizeof(ULONG); Index++) {
        Word = Input[Index];
        if (Word == END_MARK) {
            break;
        }
        Tune.Notes[Index] = Word;
    }
    while (Index > 0) {
        Word = Tune.Notes[--Index];
        Tune.Header.Notes++;
        if (Word > Tune.Header.Highest) {
            Tune.Header.Highest = Word;
        }
    }
    return Tune.Header.Highest > 127 ? STATUS_NOT_SUPPORTED : STATUS_SUCCESS;
}

__attribute__((noinline)) static NTSTATUS CheckGuarded(PVOID Input, ULONG Length)
{
    NTSTATUS Status;

    __try {
        Status = Check(Input, Length);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_TUNE_CHECK) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, CheckGuarded(Stack->Parameters.DeviceIoControl.Type3InputBuffer, InputOf(Stack)), 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, 0, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
