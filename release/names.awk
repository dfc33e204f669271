# From the names in the first file, without what compilers add to them, to those in the
# second (as `nm --format=posix` prints them) that are the same without that. Names of C are
# as they are, also where they are not in the second: they may be in a library.
#
# With -v bare=1: the names without that, for making the first file.
function without(name) {
    sub(/\.llvm\.[0-9]+$/, "", name)
    # Several of one name in one object.
    sub(/\.[0-9]+$/, "", name)
    # The mangling of Rust until 2025, and the one after that (RFC 2603).
    if (name ~ /^_ZN/) sub(/17h[0-9a-f]+E$/, "E", name)
    else if (name ~ /^_R/) gsub(/Cs[0-9A-Za-z]+_/, "C_", name)
    return name
}
bare { print without($1); next }
FNR == NR { wanted[$1] = FNR; last = FNR; if ($1 !~ /^_(ZN|R)/) found[FNR] = $1 "\n"; next }
(name = without($1)) in wanted && name ~ /^_(ZN|R)/ { found[wanted[name]] = found[wanted[name]] $1 "\n" }
END { for (i = 1; i <= last; i++) printf "%s", found[i] }
