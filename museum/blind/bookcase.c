/*
 * bookcase: a store of small named values ("books", up to 1 KiB each under a 32-bit key) that all processes share. Values can be set, fetched,
 * removed and listed; a reader-writer resource guards the shelf.
 *
 * The bug: the ERESOURCE is acquired without entering a critical region. A thread that is suspended while it holds the shelf never gives it back,
 * and every other caller (and the unload) waits for ever.
 *
 * Device: none
 * Rule: resource-apcs-enabled
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define BOOK_TAG 'kooB'
#define MAXIMUM_BOOKS 256
#define MAXIMUM_LENGTH 1024

#define IOCTL_BOOK_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: key, data */
#define IOCTL_BOOK_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)     /* in: key; out: data */
#define IOCTL_BOOK_REMOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: key */
#define IOCTL_BOOK_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_READ_ACCESS)    /* out: keys */

DRIVER_INITIALIZE DriverEntry;

typedef struct _BOOK {
    LIST_ENTRY Entry;
    ULONG Key;
    ULONG Length;
    UCHAR Data[MAXIMUM_LENGTH];
} BOOK, *PBOOK;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Bookcase");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Bookcase");
static PDEVICE_OBJECT Control;
static ERESOURCE ShelfLock;
static LIST_ENTRY Shelf; /* guarded by ShelfLock */
static ULONG Books;      /* likewise */

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID TakeShelf(BOOLEAN ToChange)
{
#ifdef FIXED
    KeEnterCriticalRegion();
#endif
    if (ToChange)
        ExAcquireResourceExclusiveLite(&ShelfLock, TRUE);
    else
        ExAcquireResourceSharedLite(&ShelfLock, TRUE);
}

static VOID GiveShelf(VOID)
{
    ExReleaseResourceLite(&ShelfLock);
#ifdef FIXED
    KeLeaveCriticalRegion();
#endif
}

/* The shelf is held. */
static PBOOK Find(ULONG Key)
{
    PLIST_ENTRY e;

    for (e = Shelf.Flink; e != &Shelf; e = e->Flink) {
        PBOOK Book = CONTAINING_RECORD(e, BOOK, Entry);

        if (Book->Key == Key)
            return Book;
    }
    return NULL;
}

static NTSTATUS SetBook(const UCHAR *Input, ULONG Length)
{
    PBOOK Book, Old;
    NTSTATUS Status = STATUS_SUCCESS;

    if (Length < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    if (Length - sizeof(ULONG) > MAXIMUM_LENGTH)
        return STATUS_INVALID_BUFFER_SIZE;
    Book = ExAllocatePoolWithTag(PagedPool, sizeof(BOOK), BOOK_TAG);
    if (Book == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(&Book->Key, Input, sizeof(ULONG));
    Book->Length = Length - sizeof(ULONG);
    RtlCopyMemory(Book->Data, Input + sizeof(ULONG), Book->Length);

    TakeShelf(TRUE);
    Old = Find(Book->Key);
    if (Old == NULL && Books == MAXIMUM_BOOKS) {
        Old = Book; /* to be freed below */
        Status = STATUS_QUOTA_EXCEEDED;
    } else {
        if (Old != NULL)
            RemoveEntryList(&Old->Entry);
        else
            Books++;
        InsertHeadList(&Shelf, &Book->Entry);
    }
    GiveShelf();

    if (Old != NULL)
        ExFreePoolWithTag(Old, BOOK_TAG);
    return Status;
}

static NTSTATUS GetBook(PVOID Buffer, ULONG InputLength, ULONG OutputLength, PULONG_PTR Information)
{
    ULONG Key;
    PBOOK Book;
    NTSTATUS Status = STATUS_SUCCESS;

    if (InputLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(&Key, Buffer, sizeof(ULONG));
    TakeShelf(FALSE);
    Book = Find(Key);
    if (Book == NULL) {
        Status = STATUS_NOT_FOUND;
    } else if (Book->Length > OutputLength) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        RtlCopyMemory(Buffer, Book->Data, Book->Length);
        *Information = Book->Length;
    }
    GiveShelf();
    return Status;
}

static NTSTATUS RemoveBook(PVOID Buffer, ULONG InputLength)
{
    ULONG Key;
    PBOOK Book;

    if (InputLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(&Key, Buffer, sizeof(ULONG));
    TakeShelf(TRUE);
    Book = Find(Key);
    if (Book != NULL) {
        RemoveEntryList(&Book->Entry);
        Books--;
    }
    GiveShelf();
    if (Book == NULL)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(Book, BOOK_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS ListBooks(PULONG Keys, ULONG OutputLength, PULONG_PTR Information)
{
    ULONG Room = OutputLength / sizeof(ULONG), n = 0;
    PLIST_ENTRY e;
    NTSTATUS Status = STATUS_SUCCESS;

    TakeShelf(FALSE);
    if (Books > Room) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        for (e = Shelf.Flink; e != &Shelf; e = e->Flink)
            Keys[n++] = CONTAINING_RECORD(e, BOOK, Entry)->Key;
    }
    GiveShelf();
    *Information = n * sizeof(ULONG);
    return Status;
}

static NTSTATUS NTAPI BookControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BOOK_SET:
        Status = SetBook(Buffer, In);
        break;
    case IOCTL_BOOK_GET:
        Status = GetBook(Buffer, In, Out, &Information);
        break;
    case IOCTL_BOOK_REMOVE:
        Status = RemoveBook(Buffer, In);
        break;
    case IOCTL_BOOK_LIST:
        Status = ListBooks(Buffer, Out, &Information);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, Status, Information);
}

static NTSTATUS NTAPI BookOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI BookUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Control);
    while (!IsListEmpty(&Shelf)) {
        PBOOK Book = CONTAINING_RECORD(RemoveHeadList(&Shelf), BOOK, Entry);

        ExFreePoolWithTag(Book, BOOK_TAG);
    }
    ExDeleteResourceLite(&ShelfLock);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    InitializeListHead(&Shelf);
    Status = ExInitializeResourceLite(&ShelfLock);
    if (!NT_SUCCESS(Status))
        return Status;
    Driver->MajorFunction[IRP_MJ_CREATE] = BookOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BookOpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BookControl;
    Driver->DriverUnload = BookUnload;
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (NT_SUCCESS(Status)) {
        Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
        if (!NT_SUCCESS(Status))
            IoDeleteDevice(Control);
    }
    if (!NT_SUCCESS(Status))
        ExDeleteResourceLite(&ShelfLock);
    return Status;
}
