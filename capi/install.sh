#!/usr/bin/env bash
# Builds the C library and installs it: install.sh PREFIX [BUILT]. Headers go to PREFIX/include, the libraries to PREFIX/lib, and what
# pkg-config reads to PREFIX/lib/pkgconfig. BUILT: a directory in which the libraries are already.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: install.sh PREFIX [BUILT]" >&2; exit 2; }
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
built=${2:+$(cd "$2" && pwd)}
cd "$(dirname "$0")"

if [ -z "$built" ]; then
    cargo build -q --release --locked -p waterway-capi --lib
    built=${CARGO_TARGET_DIR:-../target}/release
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

mkdir -p "$prefix/include" "$prefix/lib/pkgconfig"
install -m 644 include/* "$prefix/include/"
install -m 755 "$built/libwaterway_c.so" "$prefix/lib/libwaterway_c.so.$version"
# The loader looks for the soname, the linker for the plain name.
ln -sf "libwaterway_c.so.$version" "$prefix/lib/libwaterway_c.so.0"
ln -sf libwaterway_c.so.0 "$prefix/lib/libwaterway_c.so"
install -m 644 "$built/libwaterway_c.a" "$prefix/lib/"
sed -e "s|@prefix@|$prefix|" -e "s|@version@|$version|" waterway.pc.in >"$prefix/lib/pkgconfig/waterway.pc"
