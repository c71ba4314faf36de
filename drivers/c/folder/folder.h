/* What the stories of folder.sys share. */
#ifndef FOLDER_H
#define FOLDER_H

#include "../seh/clang.h"
/* ntdef.h has them already. */
#define _REPARSE_DATA_BUFFER _REPARSE_DATA_BUFFER_OF_IFS
#define REPARSE_DATA_BUFFER REPARSE_DATA_BUFFER_OF_IFS
#define PREPARSE_DATA_BUFFER PREPARSE_DATA_BUFFER_OF_IFS
#include <ddk/ntifs.h>

#define STORIES "folder"
#include "../control.h"

#define FOLDER_TAG 0x64646c46u /* "Fldd" in pool listings */
#define ALL_SHARED (FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)
#define SYNCHRONOUS FILE_SYNCHRONOUS_IO_NONALERT
#define TO_READ (FILE_READ_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE)
#define TO_WRITE (FILE_READ_DATA | FILE_WRITE_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE)

static IO_STATUS_BLOCK Status; /* of the last call: one story runs at a time */
static HANDLE File;            /* of the last open */

/* Opens or makes a file below Root, if that is not null; File is the handle. */
static NTSTATUS OpenIn(HANDLE Root, PCWSTR Name, ACCESS_MASK Access, ULONG Share, ULONG Disposition, ULONG Options)
{
    UNICODE_STRING String;
    OBJECT_ATTRIBUTES Attributes;

    RtlInitUnicodeString(&String, Name);
    InitializeObjectAttributes(&Attributes, &String, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, Root, NULL);
    Status.Status = STATUS_PENDING;
    Status.Information = 99;
    File = NULL;
    return ZwCreateFile(&File, Access, &Attributes, &Status, NULL, FILE_ATTRIBUTE_NORMAL, Share, Disposition, Options, NULL, 0);
}

static NTSTATUS Open(PCWSTR Name, ACCESS_MASK Access, ULONG Disposition, ULONG Options)
{
    return OpenIn(NULL, Name, Access, ALL_SHARED, Disposition, Options);
}

/* The file is there, with this text in it. */
static BOOLEAN Holds(PCWSTR Name, const char *Text)
{
    char Buffer[64];
    LARGE_INTEGER Offset = {.QuadPart = 0};
    HANDLE Before = File;
    BOOLEAN Same;

    if (Open(Name, TO_READ, FILE_OPEN, SYNCHRONOUS) != STATUS_SUCCESS) {
        File = Before;
        return FALSE;
    }
    if (ZwReadFile(File, NULL, NULL, NULL, &Status, Buffer, sizeof(Buffer), &Offset, NULL) == STATUS_END_OF_FILE) {
        Status.Information = 0;
    }
    Same = Status.Information == strlen(Text) && memcmp(Buffer, Text, Status.Information) == 0;
    ZwClose(File);
    File = Before;
    return Same;
}

/* A file of this name is made anew, with this text in it, and closed. */
static NTSTATUS Make(PCWSTR Name, const char *Text)
{
    HANDLE Before = File;
    NTSTATUS Made = Open(Name, TO_WRITE, FILE_OVERWRITE_IF, SYNCHRONOUS);

    if (NT_SUCCESS(Made)) {
        Made = ZwWriteFile(File, NULL, NULL, NULL, &Status, (PVOID)Text, (ULONG)strlen(Text), NULL, NULL);
        ZwClose(File);
    }
    File = Before;
    return Made;
}

#endif
