#!/bin/sh
# Checks how the text is laid out; needs only sh and awk. A line for each file and rule:
#   COLUMNS    No line is longer than 100 characters. (There are no generated tables to except.)
#   FUNCTIONS  No function is longer than 60 lines, from its first line to its closing brace.
#   SECTIONS   Each number stands in one mark of a header, and the marks count up from 1:
#                  // ---- [3] CONTEXT ---------------------------------------------------------
#              The mark stands where the section first appears: at its declarations, or, if it
#              declares nothing, in the implementation. Where the implementation comes to a
#              section that was declared above, its banner is the name without the number:
#                  // ---- CONTEXT -------------------------------------------------------------
#              The index, from the word INDEX to an empty line, has every mark once, in the same
#              words, between two spaces and two spaces or the end of the line: "  [3] CONTEXT  ".
# Whether each test is in the list of its file is left to the compiler: see compiled() in run.sh.
#   sh tests/test_layout.sh [FILE...]      these files; without any, all of the repository
cd "$(dirname "$0")/.." || exit 1
LC_ALL=C
export LC_ALL
passed=0 failed=0

# Judges file $2 by rule $1: what the rule, a function below, prints are its faults.
check() {
    faults=$($1 "$2")
    if [ -z "$faults" ]; then
        passed=$((passed + 1))
        echo "ok   $2: $1"
    else
        failed=$((failed + 1))
        echo "$faults" | head -n 5 | sed 's/^/  /'
        echo "FAIL $2: $1, $(echo "$faults" | wc -l | tr -d ' ') faults"
    fi
}

# UTF-8 has one byte outside 0x80-0xbf for each character.
columns() {
    tr -d '\200-\277' <"$1" |
        awk 'length($0) > 100 { print "line " NR " has " length($0) " characters" }'
}

# Only declarations, preprocessor lines and comments begin in the first column; a function ends with
# a brace alone in it.
functions() {
    awk '/^[A-Za-z_]/ { begin = NR; name = $0 }
         /^}$/ && NR - begin >= 60 { print "line " begin ": " NR - begin + 1 " lines: " name }' "$1"
}

sections() {
    awk 'function trimmed(s) { sub(/ *-*$/, "", s); return s }
         /^ *INDEX$/ { in_index = 1 }
         /^$/ { in_index = 0 }
         in_index {
             for (rest = $0; match(rest, /  \[[0-9]+\] /); ) {
                 rest = substr(rest, RSTART + 2)
                 entry = rest
                 sub(/   *.*/, "", entry)
                 if (entry in listed) print "line " NR ": the index has " entry " twice"
                 listed[entry] = NR
                 rest = substr(rest, length(entry) + 1)
             }
         }
         /^\/\/ ---- \[/ {
             mark = trimmed(substr($0, 9))
             if (mark !~ "^\\[" ++marks "\\] ")
                 print "line " NR ": " mark ", where [" marks "] is expected"
             if (!(mark in listed)) print "line " NR ": the index lacks " mark
             delete listed[mark]
             name = mark
             sub(/^[^ ]* /, "", name)
             declared[name] = NR
         }
         /^\/\/ ---- [^[]/ {
             name = trimmed(substr($0, 9))
             if (!(name in declared)) print "line " NR ": no section above is named " name
         }
         END {
             if (!marks) print "no section"
             for (entry in listed) print "line " listed[entry] ": no section is marked " entry
         }' "$1"
}

[ $# -gt 0 ] || set -- *.h examples/*.[ch] tests/*.[ch]
for file; do
    check columns "$file"
    check functions "$file"
    case $file in */*) ;; *) check sections "$file" ;; esac
done
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
