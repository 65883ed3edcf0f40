#!/bin/sh
# Starts nginx with nginx.conf; with a certificate in the environment over TLS and HTTP/2, with
# WORKER_SHUTDOWN_TIMEOUT (such as 1s) with that setting.
set -eu
folder=$(dirname "$0")
mkdir -p /tmp/lastpacket-nginx
# Of this container alone, and gone with it.
mount -t tmpfs -o mode=755 tmpfs /tmp/lastpacket-nginx
head -c 140000 /dev/zero | tr '\0' x > /tmp/lastpacket-nginx/slow.txt
config=/tmp/lastpacket-nginx/nginx.conf
cp "$folder/nginx.conf" "$config"
if [ -n "${WORKER_SHUTDOWN_TIMEOUT:-}" ]; then
    sed -i "s/^# worker_shutdown_timeout .*/worker_shutdown_timeout $WORKER_SHUTDOWN_TIMEOUT;/" "$config"
fi
if [ -n "${LASTPACKET_TLS_CERT:-}" ]; then
    sed -i "s#listen 8080;#listen 8080 ssl http2; ssl_certificate $LASTPACKET_TLS_CERT; ssl_certificate_key $LASTPACKET_TLS_KEY;#" "$config"
fi
exec nginx -e stderr -c "$config"
