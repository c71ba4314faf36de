/* What the class extension DirqlKmdfClass (kmdf_class.c) and its clients (kmdf_classed.c) share: its functions. */
#ifndef FRAMEWORK_CLASS_H
#define FRAMEWORK_CLASS_H

#define CLASS_NAME L"DirqlKmdfClass"
#define CLASS_MAJOR 1
#define CLASS_MINOR 2

enum { ClassAddIndex, ClassMeanIndex, CLASS_FUNCTION_COUNT };

typedef VOID (*PFN_CLASS_ADD)(PWDF_DRIVER_GLOBALS Globals, ULONG Value);
typedef ULONG (*PFN_CLASS_MEAN)(PWDF_DRIVER_GLOBALS Globals); /* of all values of the client */

#endif
