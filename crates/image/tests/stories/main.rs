//! Stories of driver images: real ones that mingw builds here, and odd ones assembled byte by byte.

mod assemble;
mod loading;
mod mingw;
mod mutilation;
mod refusals;
mod rustc;
mod shapes;
mod symbols;
mod unwinding;
