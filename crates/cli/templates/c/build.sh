#!/bin/sh
# Builds build/NAME.sys with mingw (gcc-mingw-w64-x86-64), or, as `./build.sh clang`, with clang and lld and mingw's headers.
set -eu
cd "$(dirname "$0")"
mkdir -p build
mingw=/usr/x86_64-w64-mingw32
case "${1:-mingw}" in
mingw) compile="x86_64-w64-mingw32-gcc" ;;
*) compile="$1 --target=x86_64-w64-mingw32 -isystem $mingw/include -fuse-ld=lld -L$mingw/lib" ;;
esac
$compile -std=gnu11 -O2 -g -Wall -Wextra -Wno-multichar -Wno-pragma-pack -ffreestanding -nostdlib -isystem $mingw/include/ddk \
    -Wl,--subsystem,native,--entry,DriverEntry,--image-base,0x140000000,--dynamicbase,--nxcompat \
    -o build/NAME.sys NAME.c -lntoskrnl
