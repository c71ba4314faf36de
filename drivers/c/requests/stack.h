/* A filter device on top of another device of the same driver. Pages: IoAttachDeviceToDeviceStack function,
 * IoGetAttachedDeviceReference function, IoGetDeviceObjectPointer function, IoDetachDevice function. */

static PDEVICE_OBJECT NewFilter(REQUESTS_RESULT *Result)
{
    PDEVICE_OBJECT Filter = NULL;
    PDEVICE_EXTENSION Extension;

    if (!CHECK_STATUS(IoCreateDevice(TheDriver, sizeof(DEVICE_EXTENSION), NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Filter),
                      STATUS_SUCCESS)) {
        return NULL;
    }
    Extension = Filter->DeviceExtension;
    Extension->Kind = FilterDevice;
    CHECK(Filter->DriverObject == TheDriver && TheDriver->DeviceObject == Filter);
    CHECK((Filter->Flags & DO_DEVICE_INITIALIZING) != 0);
    return Filter;
}

/* While Filter is attached. */
static VOID CheckAttached(REQUESTS_RESULT *Result, PDEVICE_OBJECT Filter)
{
    PDEVICE_OBJECT Found;

    CHECK(Filter->StackSize == Lower->StackSize + 1);
    CHECK(Lower->AttachedDevice == Filter && Filter->AttachedDevice == NULL);
    CHECK(IoGetAttachedDevice(Lower) == Filter);
    Found = IoGetAttachedDeviceReference(Lower);
    if (CHECK(Found == Filter)) {
        ObDereferenceObject(Found);
    }
    Found = IoGetDeviceAttachmentBaseRef(Filter);
    if (CHECK(Found == Lower)) {
        ObDereferenceObject(Found);
    }
    Found = IoGetLowerDeviceObject(Filter);
    if (CHECK(Found == Lower)) {
        ObDereferenceObject(Found);
    }
    CHECK(IoGetLowerDeviceObject(Lower) == NULL);
}

static VOID CheckPointer(REQUESTS_RESULT *Result, PDEVICE_OBJECT Filter)
{
    PFILE_OBJECT File = NULL;
    PDEVICE_OBJECT Top = NULL;

    if (CHECK_STATUS(IoGetDeviceObjectPointer(&LowerName, FILE_READ_DATA, &File, &Top), STATUS_SUCCESS)) {
        CHECK(Top == Filter); /* the highest of the stack */
        CHECK(File->DeviceObject == Lower);
        CHECK(IoGetRelatedDeviceObject(File) == Filter);
        ObDereferenceObject(File);
    }
    CHECK_STATUS(IoGetDeviceObjectPointer(&AbsentName, FILE_READ_DATA, &File, &Top), STATUS_OBJECT_NAME_NOT_FOUND);
}

static VOID StackFamily(REQUESTS_RESULT *Result, PIRP Irp)
{
    PDEVICE_OBJECT Filter = NewFilter(Result);
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Below = NULL;

    UNREFERENCED_PARAMETER(Irp);
    if (Filter == NULL) {
        return;
    }
    Extension = Filter->DeviceExtension;
    CHECK(Lower->StackSize == 1);
    Extension->Below = IoAttachDeviceToDeviceStack(Filter, Lower);
    if (CHECK(Extension->Below == Lower)) {
        Filter->Flags |= Lower->Flags & DO_DIRECT_IO;
        Filter->Flags &= ~DO_DEVICE_INITIALIZING;
        CheckAttached(Result, Filter);
        CheckPointer(Result, Filter);
        IoDetachDevice(Lower);
    }
    CHECK(Lower->AttachedDevice == NULL);
    CHECK(IoGetAttachedDevice(Lower) == Lower);

    if (CHECK_STATUS(IoAttachDeviceToDeviceStackSafe(Filter, Lower, &Below), STATUS_SUCCESS)) {
        CHECK(Below == Lower);
        IoDetachDevice(Below);
    }
    Below = NULL;
    Extension->Below = Lower; /* the create and cleanup of the next call may come through */
    if (CHECK_STATUS(IoAttachDevice(Filter, &LowerName, &Below), STATUS_SUCCESS)) {
        CHECK(Below == Lower && Lower->AttachedDevice == Filter);
        IoDetachDevice(Below);
    }
    CHECK_STATUS(IoAttachDevice(Filter, &AbsentName, &Below), STATUS_OBJECT_NAME_NOT_FOUND);
    IoDeleteDevice(Filter);
    CHECK(Lower->AttachedDevice == NULL && TheDriver->DeviceObject != Filter);
}
