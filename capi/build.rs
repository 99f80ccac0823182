//! Gives the shared library its soname, and keeps it where it is: its threads run in it, and a process that forks calls it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ["-soname,libwaterway_c.so.0", "-z,nodelete", "-z,defs"] {
        println!("cargo::rustc-cdylib-link-arg=-Wl,{argument}");
    }
}
