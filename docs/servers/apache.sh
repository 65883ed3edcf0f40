#!/bin/sh
# Starts Apache httpd with apache.conf; with a certificate in the environment over TLS and HTTP/2.
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
mkdir -p /tmp/lastpacket-apache
# Of this container alone, and gone with it.
mount -t tmpfs -o mode=755 tmpfs /tmp/lastpacket-apache
echo hello > /tmp/lastpacket-apache/index
head -c 140000 /dev/zero | tr '\0' x > /tmp/lastpacket-apache/slow
exec apache2 -D FOREGROUND ${LASTPACKET_TLS_CERT:+-D TLS} -f "$folder/apache.conf"
