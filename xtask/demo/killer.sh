#!/bin/sh
# The demo's culprit: a stranger to the system, who kills one of its processes.
kill -s KILL "$1"
