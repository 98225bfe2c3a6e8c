# What the tests from outside have in common: they begin with  . tests/check.sh , and end by printing
# "$passed passed, $failed failed, $skipped skipped".
passed=0 failed=0 skipped=0

check() {  # check NAME CONDITION...
    name=$1
    shift
    if "$@"; then passed=$((passed + 1)); echo "ok   $name"
    else failed=$((failed + 1)); echo "FAIL $name"; fi
}
