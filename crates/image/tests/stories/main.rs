//! Stories of driver images: real ones that mingw builds here, and odd ones assembled byte by byte.

mod loading;
mod mingw;
