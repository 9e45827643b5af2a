#!/bin/sh
# The daemon is not started here: what a machine records is its administrator's decision. One that runs goes on with the
# new program, which it needs: it starts its workers from the file that was just replaced. Its window begins anew.
set -e
if [ "$1" = configure ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart wherefore.service
fi
