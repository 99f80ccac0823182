#!/usr/bin/env bash
# Installs the C library somewhere and runs its tests: the header, the symbols, and programs in C and C++, by every compiler that is here,
# plain and under the address and undefined behaviour sanitizers. Ends with 77 if there is no C compiler.
set -euo pipefail
cd "$(dirname "$0")"

compilers=()
for compiler in gcc clang; do
    command -v "$compiler" >/dev/null && compilers+=("$compiler")
done
[ ${#compilers[@]} -gt 0 ] || exit 77
compiler=${compilers[0]}

cargo test -q --locked -p waterway-capi
cargo build -q --locked -p waterway-capi --lib --examples
target=$(cd "${CARGO_TARGET_DIR:-../target}" && pwd)
peer=$target/debug/examples/peer

# Segments stand where they do in earnest, programs do not.
place=$(mktemp -d /dev/shm/waterway-test-capi-XXXXXX)
work=$(mktemp -d "$target/capi-XXXXXX")
trap 'rm -rf "$place" "$work"' EXIT
./install.sh "$work/prefix" "$target/debug"
export LD_LIBRARY_PATH=$work/prefix/lib
if command -v pkg-config >/dev/null; then
    read -ra library <<<"$(PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig pkg-config --cflags --libs waterway)"
else
    library=("-I$work/prefix/include" "-L$work/prefix/lib" -lwaterway_c)
fi

# The header and the library have the same functions, the library shows nothing else, and the tests call them all.
grep -o 'ww_[a-z_]*(' include/waterway.h | tr -d '(' | sort -u >"$work/declared"
nm -D --defined-only "$work/prefix/lib/libwaterway_c.so" | awk '{ print $3 }' | sort >"$work/exported"
diff "$work/declared" "$work/exported"
while read -r function; do
    grep -q "\<$function(" tests/*.c tests/common.h || { echo "no test in C calls $function"; exit 1; }
done <"$work/declared"
readelf -d "$work/prefix/lib/libwaterway_c.so" | grep -q 'SONAME.*\[libwaterway_c.so.0\]'

warnings=(-D_GNU_SOURCE -Wall -Wextra -Werror -pedantic -g)
strict=(-std=c11 "${warnings[@]}")
sanitizers=(-O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)

# build NAME SOURCE COMPILER FLAGS…
build() {
    local name=$1 source=$2 by=$3
    shift 3
    "$by" "${strict[@]}" "$@" "$source" -o "$work/$name" "${library[@]}" -pthread
}

# A directory for the segments of one test.
segments() { mktemp -d "$place/XXXXXX"; }

# Nothing may be left in it.
clean() { [ -z "$(find "$1" -mindepth 1)" ] || { echo "left behind by $2:"; find "$1"; exit 1; }; }

# run PROGRAM ARGUMENTS…
run() {
    local own
    own=$(segments)
    WATERWAY_DIR=$own timeout 900 "$@" || { echo "failed: $*"; exit 1; }
    clean "$own" "$1"
}

for by in "${compilers[@]}"; do
    for program in border channels epoll forked patterns echo worker; do
        build "$program-$by" "tests/$program.c" "$by" "${sanitizers[@]}"
    done
    for program in border channels epoll forked patterns; do
        run "$work/$program-$by"
    done
    # Two languages in one channel.
    run "$peer" echo "$work/echo-$by"
    run "$peer" kills "$work/worker-$by"
done

# C++, as the oldest and the newest that it may be, and without exceptions.
for by in "${compilers[@]}"; do
    plus=${by/gcc/g++}
    plus=${plus/%clang/clang++}
    if ! command -v "$plus" >/dev/null; then
        echo "C++ by $by: left out, there is no $plus here"
        continue
    fi
    for flags in -std=c++17 -std=c++20 "-std=c++17 -fno-exceptions"; do
        # shellcheck disable=SC2086
        "$plus" $flags "${warnings[@]}" "${sanitizers[@]}" tests/cpp.cpp -o "$work/cpp" "${library[@]}" -pthread
        run "$work/cpp"
    done
done

# The sanitizer keeps what is freed for a while, so this is told without it.
build leaks tests/leaks.c "$compiler" -O2
run "$work/leaks"

# The library may be part of the program.
"$compiler" "${strict[@]}" -I"$work/prefix/include" tests/channels.c -o "$work/channels-static" "$work/prefix/lib/libwaterway_c.a" -pthread -ldl -lm
run "$work/channels-static"

# What the documentation shows: a receiver and a sender in C, and a receiver in C++, which is to print the same.
awk -v to="$work/shown" '/^```c(pp)?$/ { file = (to (++count) "." substr($0, 4)); next } /^```$/ { file = "" } file { print > file }' ../docs/c.md
build receives "$work/shown1.c" "$compiler" "${sanitizers[@]}"
build sends "$work/shown2.c" "$compiler" "${sanitizers[@]}"
receivers=(receives)
if command -v g++ >/dev/null; then
    g++ -std=c++17 "${warnings[@]}" "${sanitizers[@]}" "$work/shown3.cpp" -o "$work/receives-cpp" "${library[@]}" -pthread
    receivers+=(receives-cpp)
fi
for receiver in "${receivers[@]}"; do
    shown=$(segments)
    rm -f "$work/ready"
    WATERWAY_DIR=$shown timeout 100 "$work/$receiver" >"$work/received" 2>"$work/ready" &
    until grep -qs waiting "$work/ready"; do
        kill -0 $! || { echo "$receiver of docs/c.md has ended"; exit 1; }
        sleep 0.05
    done
    WATERWAY_DIR=$shown timeout 60 "$work/sends"
    wait $!
    [ "$(grep -c '^tick .*: 99.5$' "$work/received")" = 1000 ] || { echo "the programs of docs/c.md lost something"; exit 1; }
    clean "$shown" "the programs of docs/c.md"
done
echo "C: ${#compilers[@]} compiler(s), two languages in one channel, a million messages: well"
