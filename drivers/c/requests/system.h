/* What a driver asks of the system as a whole. Pages: IoAllocateDriverObjectExtension function,
 * IoRegisterShutdownNotification function, IoAllocateErrorLogEntry function, IoCreateSymbolicLink function,
 * HalGetBusDataByOffset function, IoCheckShareAccess function. */

static VOID CheckExtension(REQUESTS_RESULT *Result)
{
    static UCHAR Identifier, Stranger;
    PULONG Extension = IoGetDriverObjectExtension(TheDriver, &Identifier);
    PVOID Second = NULL;

    CHECK(Extension == NULL);
    CHECK_STATUS(IoAllocateDriverObjectExtension(TheDriver, &Identifier, 16, (PVOID *)&Extension), STATUS_SUCCESS);
    if (CHECK(Extension != NULL)) {
        CHECK(Extension[0] == 0 && Extension[3] == 0);
        CHECK(IoGetDriverObjectExtension(TheDriver, &Identifier) == Extension);
    }
    CHECK(IoGetDriverObjectExtension(TheDriver, &Stranger) == NULL);
    CHECK_STATUS(IoAllocateDriverObjectExtension(TheDriver, &Identifier, 16, &Second), STATUS_OBJECT_NAME_COLLISION);
}

static VOID CheckErrorLog(REQUESTS_RESULT *Result)
{
    PIO_ERROR_LOG_PACKET Packet = IoAllocateErrorLogEntry(Lower, sizeof(IO_ERROR_LOG_PACKET));

    CHECK(IoAllocateErrorLogEntry(Lower, ERROR_LOG_MAXIMUM_SIZE + 1) == NULL);
    if (CHECK(Packet != NULL)) {
        RtlZeroMemory(Packet, sizeof(*Packet));
        Packet->ErrorCode = 0xC0040001;
        Packet->UniqueErrorValue = 1;
        IoWriteErrorLogEntry(Packet);
    }
    Packet = IoAllocateErrorLogEntry(TheDriver, ERROR_LOG_MAXIMUM_SIZE);
    if (CHECK(Packet != NULL)) {
        IoFreeErrorLogEntry(Packet);
    }
}

static VOID CheckLinks(REQUESTS_RESULT *Result)
{
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlRequestsLink");
    UNICODE_STRING Open = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlRequestsOpen");
    PFILE_OBJECT File;
    PDEVICE_OBJECT Device;

    CHECK_STATUS(IoCreateSymbolicLink(&Link, &LowerName), STATUS_SUCCESS);
    CHECK_STATUS(IoCreateSymbolicLink(&Link, &AbsentName), STATUS_OBJECT_NAME_COLLISION);
    CHECK_STATUS(IoCreateUnprotectedSymbolicLink(&Open, &LowerName), STATUS_SUCCESS);
    if (CHECK_STATUS(IoGetDeviceObjectPointer(&Open, FILE_READ_DATA, &File, &Device), STATUS_SUCCESS)) {
        CHECK(Device == Lower);
        ObDereferenceObject(File);
    }
    CHECK_STATUS(IoDeleteSymbolicLink(&Open), STATUS_SUCCESS);
    CHECK_STATUS(IoDeleteSymbolicLink(&Link), STATUS_SUCCESS);
    CHECK_STATUS(IoDeleteSymbolicLink(&Link), STATUS_OBJECT_NAME_NOT_FOUND);
}

/* Without a card: the bus of the machine is there, slot 31 is empty, bus 200 is not there. */
static VOID CheckBus(REQUESTS_RESULT *Result)
{
    PCI_SLOT_NUMBER Slot;
    USHORT Vendor[2] = {0, 0x1234};
    ULONG Value = 0;

    Slot.u.AsULONG = 0;
    Slot.u.bits.DeviceNumber = 31;
    CHECK(HalGetBusDataByOffset(PCIConfiguration, 0, Slot.u.AsULONG, Vendor, 0, sizeof(Vendor)) == 2);
    CHECK(Vendor[0] == PCI_INVALID_VENDORID && Vendor[1] == 0x1234);
    CHECK(HalGetBusData(PCIConfiguration, 200, Slot.u.AsULONG, Vendor, sizeof(Vendor)) == 0);
    CHECK(HalSetBusDataByOffset(PCIConfiguration, 200, Slot.u.AsULONG, &Value, 4, sizeof(Value)) == 0);
    CHECK(HalSetBusData(PCIConfiguration, 200, Slot.u.AsULONG, &Value, sizeof(Value)) == 0);
}

static VOID CheckTranslation(REQUESTS_RESULT *Result)
{
    PHYSICAL_ADDRESS Address = {.QuadPart = 0xE0000000}, Translated = {.QuadPart = 0};
    ULONG Space = 0; /* memory */

    CHECK(HalTranslateBusAddress(PCIBus, 0, Address, &Space, &Translated));
    CHECK(Space == 0 && Translated.QuadPart == Address.QuadPart);
}

static VOID CheckShareAccess(REQUESTS_RESULT *Result, PFILE_OBJECT File)
{
    BOOLEAN Kept[6] = {File->ReadAccess,  File->WriteAccess, File->DeleteAccess,
                       File->SharedRead, File->SharedWrite, File->SharedDelete};
    SHARE_ACCESS Access;

    IoSetShareAccess(FILE_READ_DATA, FILE_SHARE_READ, File, &Access);
    CHECK(Access.OpenCount == 1 && Access.Readers == 1 && Access.Writers == 0 && Access.SharedRead == 1);
    CHECK_STATUS(IoCheckShareAccess(FILE_WRITE_DATA, FILE_SHARE_READ, File, &Access, FALSE), STATUS_SHARING_VIOLATION);
    CHECK_STATUS(IoCheckShareAccess(FILE_READ_DATA, 0, File, &Access, FALSE), STATUS_SHARING_VIOLATION);
    CHECK_STATUS(IoCheckShareAccess(FILE_READ_DATA, FILE_SHARE_READ, File, &Access, FALSE), STATUS_SUCCESS);
    CHECK(Access.OpenCount == 1);
    IoUpdateShareAccess(File, &Access);
    CHECK(Access.OpenCount == 2 && Access.Readers == 2 && Access.SharedRead == 2);
    IoRemoveShareAccess(File, &Access);
    IoRemoveShareAccess(File, &Access);
    CHECK(Access.OpenCount == 0 && Access.Readers == 0 && Access.SharedRead == 0);
    File->ReadAccess = Kept[0];
    File->WriteAccess = Kept[1];
    File->DeleteAccess = Kept[2];
    File->SharedRead = Kept[3];
    File->SharedWrite = Kept[4];
    File->SharedDelete = Kept[5];
}

/* Of the thread that asks, and of its process. */
static VOID CheckProcess(REQUESTS_RESULT *Result)
{
    HANDLE Id = PsGetCurrentProcessId();
    PEPROCESS Process = NULL;
    ULONG_PTR Low = 0, High = 0;

    CHECK(PsGetProcessId(PsGetCurrentProcess()) == Id);
    if (CHECK_STATUS(PsLookupProcessByProcessId(Id, &Process), STATUS_SUCCESS)) {
        CHECK(Process == PsGetCurrentProcess());
        ObDereferenceObject(Process);
    }
    CHECK_STATUS(PsLookupProcessByProcessId((HANDLE)0x7FFFFFFC, &Process), STATUS_INVALID_PARAMETER);
    IoGetStackLimits(&Low, &High);
    CHECK(Low < (ULONG_PTR)&Low && (ULONG_PTR)&Low < High);
    CHECK(((Low | High) & (PAGE_SIZE - 1)) == 0);
}

/* No debugger is attached, and no interface of this class is registered. */
static VOID CheckNobody(REQUESTS_RESULT *Result)
{
    static const GUID Class = {0x8a1e5b70, 0x44d1, 0x4d0c, {0x9b, 0x5e, 0x21, 0x06, 0x7c, 0x3f, 0x11, 0x02}};
    PWSTR List = NULL;

    CHECK_STATUS(KdDisableDebugger(), STATUS_DEBUGGER_INACTIVE);
    CHECK_STATUS(KdEnableDebugger(), STATUS_DEBUGGER_INACTIVE);
    CHECK(KdRefreshDebuggerNotPresent());
    if (CHECK_STATUS(IoGetDeviceInterfaces(&Class, NULL, 0, &List), STATUS_SUCCESS)) {
        CHECK(List != NULL && List[0] == L'\0'); /* an empty list, and the caller's to free */
        ExFreePool(List);
    }
}

/* Runs once after DriverEntry, when all drivers of the boot are there. */
static VOID NTAPI Reinitialize(PDRIVER_OBJECT Driver, PVOID Context, ULONG Count)
{
    if (Driver == TheDriver && Context == &Reinitialized) {
        Reinitialized += 1 + (Count << 16);
    }
}

static VOID SystemFamily(REQUESTS_RESULT *Result, PIRP Irp)
{
    CheckExtension(Result);
    CheckErrorLog(Result);
    CheckLinks(Result);
    CheckBus(Result);
    CheckTranslation(Result);
    CheckProcess(Result);
    CheckNobody(Result);
    CHECK(Reinitialized == 0x10001); /* called once, with a count of 1 */
    CheckShareAccess(Result, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    CHECK_STATUS(IoRegisterShutdownNotification(Lower), STATUS_SUCCESS);
    CHECK((Lower->Flags & DO_SHUTDOWN_REGISTERED) != 0);
    IoUnregisterShutdownNotification(Lower);
    CHECK((Lower->Flags & DO_SHUTDOWN_REGISTERED) == 0);
    CHECK(IoIsWdmVersionAvailable(1, 0x10) && !IoIsWdmVersionAvailable(9, 0));
}
