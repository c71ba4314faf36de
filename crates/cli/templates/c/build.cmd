@rem Builds build\NAME.sys with MSVC and the WDK, in its "x64 Native Tools" prompt; %WDK% is e.g. 10.0.26100.0.
@if not exist build mkdir build
@set KIT=%ProgramFiles(x86)%\Windows Kits\10
cl /nologo /kernel /std:c11 /O2 /Zi /W4 /GS- /D_AMD64_ /I"%KIT%\Include\%WDK%\km" /I"%KIT%\Include\%WDK%\shared" ^
   NAME.c /Fobuild\ /Fdbuild\ /link /nologo /DRIVER /SUBSYSTEM:NATIVE /ENTRY:DriverEntry /NODEFAULTLIB /RELEASE /DEBUG ^
   /LIBPATH:"%KIT%\Lib\%WDK%\km\x64" ntoskrnl.lib hal.lib /OUT:build\NAME.sys
