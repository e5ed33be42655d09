#!/bin/sh
# Runs one tool on its cases and compares what it prints with cases/TOOL.out.
# usage: ./cases.sh TOOL
set -eu
tool=$1
run() { "../src/$tool/$tool" "$@" || echo "exit $?"; }

case $tool in
wstat)
    run -n 5 cases/sea.txt
    run -j -n 3 cases/sea.txt
    ;;
wcmp)
    run cases/sea.txt cases/hill.txt
    run cases/sea.txt cases/sea.txt
    ;;
histo)
    printf '%s\n' 1 2 2 3 3 3 4 4 4 4 9.5 | run 4
    ;;
calc)
    run <cases/calc.in
    run -j <cases/calc.in
    ;;
esac | diff -u "cases/$tool.out" -
