/*
 * seh.h: before everything else in a file that clang compiles (for __try and __except). mingw's headers know GCC's attributes and assembly only
 * under GCC's name, and look for a header which clang does not have any more.
 */
#define __GNUC__ 12
#define __GNUC_MINOR__ 2
#define __GNUC_PATCHLEVEL__ 0
#define _MM3DNOW_H_INCLUDED
#define __MM3DNOW_H
