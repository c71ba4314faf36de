/* control.h: a device that the driver makes itself in DriverEntry, and deletes when it is unloaded. */

static VOID NTAPI ControlUnload(PDRIVER_OBJECT driver)
{
    PDEVICE_OBJECT self = driver->DeviceObject;
    SITE *site = self->DeviceExtension;

    IoDeleteSymbolicLink(&site->Link);
    GateClose(site, SHUT_GONE);
    if (site->Script->End != NULL)
        site->Script->End(site, TRUE);
    SiteEmpty(site, STATUS_DELETE_PENDING);
    if (NT_SUCCESS(IoAcquireRemoveLock(&site->Tenure, driver)))
        IoReleaseRemoveLockAndWait(&site->Tenure, driver);
    if (site->Script->Buried != NULL)
        site->Script->Buried(site);
    IoDeleteDevice(self);
}

/* Born makes what is needed for the first request; Begin is not called. */
static NTSTATUS ControlEntry(PDRIVER_OBJECT driver, const SCRIPT *script)
{
    UNICODE_STRING name;
    PDEVICE_OBJECT self;
    NTSTATUS status;
    SITE *site;

    SiteScript = script;
    RtlInitUnicodeString(&name, script->Device);
    status = IoCreateDevice(driver, script->Size, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &self);
    if (!NT_SUCCESS(status))
        return status;
    site = self->DeviceExtension;
    SiteInit(site, self, 0);
    self->Flags |= script->Direct ? DO_DIRECT_IO : DO_BUFFERED_IO;
    if (script->Born != NULL) {
        status = script->Born(site);
        if (!NT_SUCCESS(status)) {
            IoDeleteDevice(self);
            return status;
        }
    }
    SiteDispatch(driver);
    driver->DriverUnload = ControlUnload;
    RtlInitUnicodeString(&site->Link, script->Link);
    status = IoCreateSymbolicLink(&site->Link, &name);
    if (!NT_SUCCESS(status)) {
        if (script->End != NULL)
            script->End(site, TRUE);
        if (script->Buried != NULL)
            script->Buried(site);
        IoDeleteDevice(self);
        return status;
    }
    return STATUS_SUCCESS;
}
