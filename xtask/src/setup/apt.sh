#!/bin/sh
# Installs packages and leaves the machine's services as they were: what a package would start is not
# started (policy-rc.d), and what it enables is disabled again. Run as root.
set -eu
export DEBIAN_FRONTEND=noninteractive

policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' INT TERM
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

unit() {
  [ -e "/lib/systemd/system/$1.service" ] || [ -e "/etc/init.d/$1" ]
}
new_services=
for service in nginx redis-server postgresql nftables; do
  unit "$service" || new_services="$new_services $service"
done

apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0 "$@" </dev/null

if [ -d /run/systemd/system ]; then
  for service in $new_services; do
    if unit "$service"; then systemctl disable --quiet "$service" || true; fi
  done
fi
