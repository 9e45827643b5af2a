#!/bin/sh
# Dumps and history go with the configuration, as the word says, and not before.
set -e
if [ "$1" = purge ]; then
    rm -rf "$DPKG_ROOT/var/lib/wherefore"
fi
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
