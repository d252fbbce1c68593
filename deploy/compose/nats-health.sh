#!/bin/sh
# nats-health.sh PID URL FILE: is the server well? Docker starts again what has ended, not what is unhealthy, and a NATS server whose disk was full stores
# nothing until it starts again. So this ends it after 6 failures in a row, 24 before its first success (it may have to catch up), as the chart's
# probes do; and in the hard way when it has not ended after 6 more. FILE is where they are counted: it has to go with the process.
failed=$(cat "$3" 2>/dev/null || echo -18)
ill=0 # timeout, and not -T, of which BusyBox 1.35 dies
timeout 5 wget -q -O /dev/null "$2" || ill=1
[ $ill = 1 ] && failed=$((failed + 1)) || failed=0
echo "$failed" >"$3"
[ "$failed" -lt 6 ] || kill -TERM "$1"
[ "$failed" -lt 12 ] || kill -QUIT "$1"
exit $ill
