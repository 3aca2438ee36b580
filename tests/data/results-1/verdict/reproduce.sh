#!/usr/bin/env bash
# Runs a server out of file descriptors (ulimit -n 64); needs bash, curl, ps. About 20 s.
cd /srv/example || exit
PORT=${PORT:-8099} NOFILE=64 CLIENTS=200 clients=
URL=/
SERVER=(python3 -m http.server "$PORT" --bind 127.0.0.1)
log=$(mktemp); (ulimit -n "$NOFILE"; exec "${SERVER[@]}") >"$log" 2>&1 &
pid=$!; trap 'kill $pid $clients 2>/dev/null' EXIT
ask() { curl -sf -o /dev/null -m 1 "http://127.0.0.1:$PORT$URL" && echo answered || echo "no answer in 1 s"; }
lives() { kill -0 $pid 2>/dev/null || { echo "the server has ended:"; tail -n 3 "$log"; exit 1; }; }
cpu() { ps -o cputimes= --pid $pid --ppid $pid | awk '{s += $1} END {print s}'; }
until (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do lives; sleep 0.1; done
echo "new client, before:          $(ask)"
# clients that connect and say nothing
for i in $(seq $CLIENTS); do (exec 3<>/dev/tcp/127.0.0.1/$PORT; exec sleep 60) 2>/dev/null & clients="$clients $!"; done
for i in $(seq 50); do [ "$(ls /proc/$pid/fd | wc -l)" -ge "$NOFILE" ] && break; lives; sleep 0.1; done; sleep 1
echo "open descriptors:            $(ls /proc/$pid/fd | wc -l) of $NOFILE"
c=$(cpu); l=$(stat -c %s "$log")
echo "new client, exhausted:       $(ask)"
sleep 9; lives
echo "CPU in 10 s:                 $(( $(cpu) - c )) s"
echo "log in 10 s:                 $(( $(stat -c %s "$log") - l )) bytes"
kill $clients; wait $clients 2>/dev/null; clients=""; t=$(date +%s%N)
until [ "$(ask)" = answered ] || [ $(( $(date +%s%N) - t )) -gt 20000000000 ]; do lives; sleep 0.02; done
echo "first answer after relief:   $(( ($(date +%s%N) - t) / 1000000 )) ms"
tail -n 3 "$log"
