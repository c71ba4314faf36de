//! A driver's place in an I/O request, with the parameters of every request.
//!
//! Page: *IO_STACK_LOCATION*; `wdm.h`. Members that `wdm.h` marks `POINTER_ALIGNMENT` lie at multiples of 8.

use crate::constant::constants;
use crate::field::layouts;
use crate::{
    ACCESS_STATE, CM_RESOURCE_LIST, Code, DEVICE_CAPABILITIES, DEVICE_OBJECT, DriverPtr, FILE_OBJECT, GUID,
    INTERFACE, IO_RESOURCE_REQUIREMENTS_LIST, MAILSLOT_CREATE_PARAMETERS, NAMED_PIPE_CREATE_PARAMETERS,
    POWER_SEQUENCE, SECURITY_QUALITY_OF_SERVICE, SYSTEM_POWER_STATE_CONTEXT, UNICODE_STRING, VPB,
};

layouts! {
    /// One driver's place in a request. `Parameters` is a union over the major and minor function.
    IO_STACK_LOCATION [size 0x48, align 8] {
        0x00 MajorFunction: u8,
        0x01 MinorFunction: u8,
        0x02 Flags: u8,
        0x03 Control: u8,
        0x08 Parameters: [u8; 0x20],
        0x08 Parameters_Create_SecurityContext = "Parameters.Create.SecurityContext":
            DriverPtr<IO_SECURITY_CONTEXT>,
        0x10 Parameters_Create_Options = "Parameters.Create.Options": u32,
        0x18 Parameters_Create_FileAttributes = "Parameters.Create.FileAttributes": u16,
        0x1a Parameters_Create_ShareAccess = "Parameters.Create.ShareAccess": u16,
        0x20 Parameters_Create_EaLength = "Parameters.Create.EaLength": u32,
        0x08 Parameters_CreatePipe_SecurityContext = "Parameters.CreatePipe.SecurityContext":
            DriverPtr<IO_SECURITY_CONTEXT>,
        0x10 Parameters_CreatePipe_Options = "Parameters.CreatePipe.Options": u32,
        0x18 Parameters_CreatePipe_Reserved = "Parameters.CreatePipe.Reserved": u16,
        0x1a Parameters_CreatePipe_ShareAccess = "Parameters.CreatePipe.ShareAccess": u16,
        0x20 Parameters_CreatePipe_Parameters = "Parameters.CreatePipe.Parameters":
            DriverPtr<NAMED_PIPE_CREATE_PARAMETERS>,
        0x08 Parameters_CreateMailslot_SecurityContext = "Parameters.CreateMailslot.SecurityContext":
            DriverPtr<IO_SECURITY_CONTEXT>,
        0x10 Parameters_CreateMailslot_Options = "Parameters.CreateMailslot.Options": u32,
        0x18 Parameters_CreateMailslot_Reserved = "Parameters.CreateMailslot.Reserved": u16,
        0x1a Parameters_CreateMailslot_ShareAccess = "Parameters.CreateMailslot.ShareAccess": u16,
        0x20 Parameters_CreateMailslot_Parameters = "Parameters.CreateMailslot.Parameters":
            DriverPtr<MAILSLOT_CREATE_PARAMETERS>,
        0x08 Parameters_Read_Length = "Parameters.Read.Length": u32,
        0x10 Parameters_Read_Key = "Parameters.Read.Key": u32,
        0x14 Parameters_Read_Flags = "Parameters.Read.Flags": u32,
        0x18 Parameters_Read_ByteOffset = "Parameters.Read.ByteOffset": i64,
        0x08 Parameters_Write_Length = "Parameters.Write.Length": u32,
        0x10 Parameters_Write_Key = "Parameters.Write.Key": u32,
        0x14 Parameters_Write_Flags = "Parameters.Write.Flags": u32,
        0x18 Parameters_Write_ByteOffset = "Parameters.Write.ByteOffset": i64,
        0x08 Parameters_QueryDirectory_Length = "Parameters.QueryDirectory.Length": u32,
        0x10 Parameters_QueryDirectory_FileName = "Parameters.QueryDirectory.FileName":
            DriverPtr<UNICODE_STRING>,
        0x18 Parameters_QueryDirectory_FileInformationClass
            = "Parameters.QueryDirectory.FileInformationClass":
            u32,
        0x20 Parameters_QueryDirectory_FileIndex = "Parameters.QueryDirectory.FileIndex": u32,
        0x08 Parameters_NotifyDirectory_Length = "Parameters.NotifyDirectory.Length": u32,
        0x10 Parameters_NotifyDirectory_CompletionFilter = "Parameters.NotifyDirectory.CompletionFilter": u32,
        0x08 Parameters_NotifyDirectoryEx_Length = "Parameters.NotifyDirectoryEx.Length": u32,
        0x10 Parameters_NotifyDirectoryEx_CompletionFilter = "Parameters.NotifyDirectoryEx.CompletionFilter":
            u32,
        0x18 Parameters_NotifyDirectoryEx_DirectoryNotifyInformationClass
            = "Parameters.NotifyDirectoryEx.DirectoryNotifyInformationClass":
            u32,
        0x08 Parameters_QueryFile_Length = "Parameters.QueryFile.Length": u32,
        0x10 Parameters_QueryFile_FileInformationClass = "Parameters.QueryFile.FileInformationClass": u32,
        0x08 Parameters_SetFile_Length = "Parameters.SetFile.Length": u32,
        0x10 Parameters_SetFile_FileInformationClass = "Parameters.SetFile.FileInformationClass": u32,
        0x18 Parameters_SetFile_FileObject = "Parameters.SetFile.FileObject": DriverPtr<FILE_OBJECT>,
        0x20 Parameters_SetFile_ReplaceIfExists = "Parameters.SetFile.ReplaceIfExists": u8,
        0x21 Parameters_SetFile_AdvanceOnly = "Parameters.SetFile.AdvanceOnly": u8,
        0x20 Parameters_SetFile_ClusterCount = "Parameters.SetFile.ClusterCount": u32,
        0x20 Parameters_SetFile_DeleteHandle = "Parameters.SetFile.DeleteHandle": u64,
        0x08 Parameters_QueryEa_Length = "Parameters.QueryEa.Length": u32,
        0x10 Parameters_QueryEa_EaList = "Parameters.QueryEa.EaList": DriverPtr<()>,
        0x18 Parameters_QueryEa_EaListLength = "Parameters.QueryEa.EaListLength": u32,
        0x20 Parameters_QueryEa_EaIndex = "Parameters.QueryEa.EaIndex": u32,
        0x08 Parameters_SetEa_Length = "Parameters.SetEa.Length": u32,
        0x08 Parameters_QueryVolume_Length = "Parameters.QueryVolume.Length": u32,
        0x10 Parameters_QueryVolume_FsInformationClass = "Parameters.QueryVolume.FsInformationClass": u32,
        0x08 Parameters_SetVolume_Length = "Parameters.SetVolume.Length": u32,
        0x10 Parameters_SetVolume_FsInformationClass = "Parameters.SetVolume.FsInformationClass": u32,
        0x08 Parameters_FileSystemControl_OutputBufferLength
            = "Parameters.FileSystemControl.OutputBufferLength":
            u32,
        0x10 Parameters_FileSystemControl_InputBufferLength
            = "Parameters.FileSystemControl.InputBufferLength":
            u32,
        0x18 Parameters_FileSystemControl_FsControlCode = "Parameters.FileSystemControl.FsControlCode": u32,
        0x20 Parameters_FileSystemControl_Type3InputBuffer = "Parameters.FileSystemControl.Type3InputBuffer":
            DriverPtr<()>,
        0x08 Parameters_LockControl_Length = "Parameters.LockControl.Length": DriverPtr<i64>,
        0x10 Parameters_LockControl_Key = "Parameters.LockControl.Key": u32,
        0x18 Parameters_LockControl_ByteOffset = "Parameters.LockControl.ByteOffset": i64,
        0x08 Parameters_DeviceIoControl_OutputBufferLength = "Parameters.DeviceIoControl.OutputBufferLength":
            u32,
        0x10 Parameters_DeviceIoControl_InputBufferLength = "Parameters.DeviceIoControl.InputBufferLength":
            u32,
        0x18 Parameters_DeviceIoControl_IoControlCode = "Parameters.DeviceIoControl.IoControlCode": u32,
        0x20 Parameters_DeviceIoControl_Type3InputBuffer = "Parameters.DeviceIoControl.Type3InputBuffer":
            DriverPtr<()>,
        0x08 Parameters_QuerySecurity_SecurityInformation = "Parameters.QuerySecurity.SecurityInformation":
            u32,
        0x10 Parameters_QuerySecurity_Length = "Parameters.QuerySecurity.Length": u32,
        0x08 Parameters_SetSecurity_SecurityInformation = "Parameters.SetSecurity.SecurityInformation": u32,
        0x10 Parameters_SetSecurity_SecurityDescriptor = "Parameters.SetSecurity.SecurityDescriptor":
            DriverPtr<()>,
        0x08 Parameters_MountVolume_Vpb = "Parameters.MountVolume.Vpb": DriverPtr<VPB>,
        0x10 Parameters_MountVolume_DeviceObject = "Parameters.MountVolume.DeviceObject":
            DriverPtr<DEVICE_OBJECT>,
        0x08 Parameters_VerifyVolume_Vpb = "Parameters.VerifyVolume.Vpb": DriverPtr<VPB>,
        0x10 Parameters_VerifyVolume_DeviceObject = "Parameters.VerifyVolume.DeviceObject":
            DriverPtr<DEVICE_OBJECT>,
        0x08 Parameters_Scsi_Srb = "Parameters.Scsi.Srb": DriverPtr<()>,
        0x08 Parameters_QueryQuota_Length = "Parameters.QueryQuota.Length": u32,
        0x10 Parameters_QueryQuota_StartSid = "Parameters.QueryQuota.StartSid": DriverPtr<()>,
        0x18 Parameters_QueryQuota_SidList = "Parameters.QueryQuota.SidList": DriverPtr<()>,
        0x20 Parameters_QueryQuota_SidListLength = "Parameters.QueryQuota.SidListLength": u32,
        0x08 Parameters_SetQuota_Length = "Parameters.SetQuota.Length": u32,
        0x08 Parameters_QueryDeviceRelations_Type = "Parameters.QueryDeviceRelations.Type": u32,
        0x08 Parameters_QueryInterface_InterfaceType = "Parameters.QueryInterface.InterfaceType":
            DriverPtr<GUID>,
        0x10 Parameters_QueryInterface_Size = "Parameters.QueryInterface.Size": u16,
        0x12 Parameters_QueryInterface_Version = "Parameters.QueryInterface.Version": u16,
        0x18 Parameters_QueryInterface_Interface = "Parameters.QueryInterface.Interface":
            DriverPtr<INTERFACE>,
        0x20 Parameters_QueryInterface_InterfaceSpecificData
            = "Parameters.QueryInterface.InterfaceSpecificData":
            DriverPtr<()>,
        0x08 Parameters_DeviceCapabilities_Capabilities = "Parameters.DeviceCapabilities.Capabilities":
            DriverPtr<DEVICE_CAPABILITIES>,
        0x08 Parameters_FilterResourceRequirements_IoResourceRequirementList
            = "Parameters.FilterResourceRequirements.IoResourceRequirementList":
            DriverPtr<IO_RESOURCE_REQUIREMENTS_LIST>,
        0x08 Parameters_ReadWriteConfig_WhichSpace = "Parameters.ReadWriteConfig.WhichSpace": u32,
        0x10 Parameters_ReadWriteConfig_Buffer = "Parameters.ReadWriteConfig.Buffer": DriverPtr<()>,
        0x18 Parameters_ReadWriteConfig_Offset = "Parameters.ReadWriteConfig.Offset": u32,
        0x20 Parameters_ReadWriteConfig_Length = "Parameters.ReadWriteConfig.Length": u32,
        0x08 Parameters_SetLock_Lock = "Parameters.SetLock.Lock": u8,
        0x08 Parameters_QueryId_IdType = "Parameters.QueryId.IdType": u32,
        0x08 Parameters_QueryDeviceText_DeviceTextType = "Parameters.QueryDeviceText.DeviceTextType": u32,
        0x10 Parameters_QueryDeviceText_LocaleId = "Parameters.QueryDeviceText.LocaleId": u32,
        0x08 Parameters_UsageNotification_InPath = "Parameters.UsageNotification.InPath": u8,
        0x09 Parameters_UsageNotification_Reserved = "Parameters.UsageNotification.Reserved": [u8; 3],
        0x10 Parameters_UsageNotification_Type = "Parameters.UsageNotification.Type": u32,
        0x08 Parameters_WaitWake_PowerState = "Parameters.WaitWake.PowerState": u32,
        0x08 Parameters_PowerSequence_PowerSequence = "Parameters.PowerSequence.PowerSequence":
            DriverPtr<POWER_SEQUENCE>,
        0x08 Parameters_Power_SystemContext = "Parameters.Power.SystemContext": u32,
        0x08 Parameters_Power_SystemPowerStateContext = "Parameters.Power.SystemPowerStateContext":
            SYSTEM_POWER_STATE_CONTEXT,
        0x10 Parameters_Power_Type = "Parameters.Power.Type": u32,
        0x18 Parameters_Power_State = "Parameters.Power.State": u32,
        0x20 Parameters_Power_ShutdownType = "Parameters.Power.ShutdownType": u32,
        0x08 Parameters_StartDevice_AllocatedResources = "Parameters.StartDevice.AllocatedResources":
            DriverPtr<CM_RESOURCE_LIST>,
        0x10 Parameters_StartDevice_AllocatedResourcesTranslated
            = "Parameters.StartDevice.AllocatedResourcesTranslated":
            DriverPtr<CM_RESOURCE_LIST>,
        0x08 Parameters_WMI_ProviderId = "Parameters.WMI.ProviderId": u64,
        0x10 Parameters_WMI_DataPath = "Parameters.WMI.DataPath": DriverPtr<()>,
        0x18 Parameters_WMI_BufferSize = "Parameters.WMI.BufferSize": u32,
        0x20 Parameters_WMI_Buffer = "Parameters.WMI.Buffer": DriverPtr<()>,
        0x08 Parameters_Others_Argument1 = "Parameters.Others.Argument1": DriverPtr<()>,
        0x10 Parameters_Others_Argument2 = "Parameters.Others.Argument2": DriverPtr<()>,
        0x18 Parameters_Others_Argument3 = "Parameters.Others.Argument3": DriverPtr<()>,
        0x20 Parameters_Others_Argument4 = "Parameters.Others.Argument4": DriverPtr<()>,
        0x28 DeviceObject: DriverPtr<DEVICE_OBJECT>,
        0x30 FileObject: DriverPtr<FILE_OBJECT>,
        0x38 CompletionRoutine: DriverPtr<Code>,
        0x40 Context: DriverPtr<()>,
    }

    /// What a create request asks for.
    IO_SECURITY_CONTEXT [size 0x18, align 8] {
        0x00 SecurityQos: DriverPtr<SECURITY_QUALITY_OF_SERVICE>,
        0x08 AccessState: DriverPtr<ACCESS_STATE>,
        0x10 DesiredAccess: u32,
        0x14 FullCreateOptions: u32,
    }
}

constants! {
    u8 {
        // `IO_STACK_LOCATION::Control`.
        SL_PENDING_RETURNED = 0x1;
        SL_ERROR_RETURNED = 0x2;
        SL_INVOKE_ON_CANCEL = 0x20;
        SL_INVOKE_ON_SUCCESS = 0x40;
        SL_INVOKE_ON_ERROR = 0x80;
    }
    u8 {
        // `IO_STACK_LOCATION::Flags`, by request.
        SL_FORCE_ACCESS_CHECK = 0x1;
        SL_OPEN_PAGING_FILE = 0x2;
        SL_OPEN_TARGET_DIRECTORY = 0x4;
        SL_STOP_ON_SYMLINK = 0x8;
        SL_CASE_SENSITIVE = 0x80;
        SL_KEY_SPECIFIED = 0x1;
        SL_OVERRIDE_VERIFY_VOLUME = 0x2;
        SL_WRITE_THROUGH = 0x4;
        SL_FT_SEQUENTIAL_WRITE = 0x8;
        SL_FORCE_DIRECT_WRITE = 0x10;
        SL_READ_ACCESS_GRANTED = 0x1;
        SL_WRITE_ACCESS_GRANTED = 0x4;
        SL_FAIL_IMMEDIATELY = 0x1;
        SL_EXCLUSIVE_LOCK = 0x2;
        SL_RESTART_SCAN = 0x1;
        SL_RETURN_SINGLE_ENTRY = 0x2;
        SL_INDEX_SPECIFIED = 0x4;
        SL_WATCH_TREE = 0x1;
        SL_ALLOW_RAW_MOUNT = 0x1;
    }
}
